"""`io.json`: what goes into an exported network, what comes out, and what to make of it."""

from typing import Any

from hep2jax.config import Config
from hep2jax.handover.programs import Program
from hep2jax.tasks.calibration import Calibration
from hep2jax.training.evaluation import Trained

FILE = "io.json"
CHANNELS = {"grey": "the mean of the channels", "green": "the green channel"}


def common(trained: Trained, program: Program) -> dict[str, Any]:
    """What holds for every format."""
    size = trained.nuclear_size
    known = {} if size is None else {"nuclear_diameter": size.nuclear_diameter, "measured_diameter": size.measured}
    return {
        "network": trained.config.model.name,
        "reads": "whole fields" if program.reads_fields else "crops of single cells",
        "grey_levels": f"0 to 255; of colour images {CHANNELS[trained.config.data.channel]}",
        **({"magnification": known | {"note": _MAGNIFICATION}} if known else {}),
        "channels": list(program.channels),
        "decision": _decision(trained.config, program),
        **_confidence(trained.calibration),
        "medical_device": False,
    }


_MAGNIFICATION = (
    "resize images so that their nuclei have this diameter in pixels, as hep2jax predict does by itself from "
    "measured_diameter, the median of what it measures in the images of the training"
)


def _decision(config: Config, program: Program) -> str:
    if not program.reads_fields:
        return "the most probable pattern"
    return (
        f"a pixel is cell where 1 - background is above {config.evaluation.foreground_threshold:g}; its pattern is the "
        "most probable one without background, and the pattern of an image is that of most cell pixels"
    )


def _confidence(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {}
    rule = (
        "p: the probabilities of a cell, or the share of each pattern of the cell pixels of an image. The confidence "
        "is the largest entry of softmax(log(max(p, least)) / temperature)"
    )
    found = {"temperature": calibration.temperature[0], "least": calibration.least}
    return {"confidence": found | {"refer_below": calibration.refer_below, "rule": rule}}
