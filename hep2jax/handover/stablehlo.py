"""Exports a network by `jax.export`: a StableHLO program for CPU, CUDA and TPU, with its description and a test."""

import datetime
import pathlib
import shutil
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import export

import hep2jax
from hep2jax import files
from hep2jax.config import Config
from hep2jax.errors import RunError
from hep2jax.handover import run_stablehlo
from hep2jax.handover.programs import Program
from hep2jax.handover.reference import TOLERANCE, Reference
from hep2jax.tasks.calibration import Calibration
from hep2jax.training.evaluation import Trained

PLATFORMS = ("cpu", "cuda", "tpu")
FILE, DESCRIPTION = "model.stablehlo", "io.json"
TEST_IMAGE, TEST_MASK, TEST_OUTPUT = "test_image.npy", "test_mask.npy", "test_output.npy"
_GUARANTEED = datetime.timedelta(days=182)
"""How much newer than the exporting jaxlib the reading one may be (https://docs.jax.dev/en/latest/export/export.html)."""


def write(folder: pathlib.Path, trained: Trained, program: Program, reference: Reference) -> float:
    """Write the program, `io.json`, `run_stablehlo.py` and the test image.

    Args:
        folder: an existing folder.
        trained: the network, in float32.
        program: its program.
        reference: the test image and its reading.

    Returns:
        The largest difference between the program's probabilities of the test image and those of hep2jax.

    Raises:
        RunError: that difference is larger than allowed; nothing is written.
    """
    exported = serialise(program)
    inputs = _test_inputs(program, reference)
    found = jax.jit(export.deserialize(exported).call)(*inputs.values())
    difference = float(np.abs(np.asarray(found)[0] - reference.probabilities).max())
    if not difference <= TOLERANCE:
        raise RunError(f"the exported program differs from hep2jax by {difference:.2g}; it is not written")
    for name, pixels in inputs.items():
        np.save(folder / name, pixels)
    np.save(folder / TEST_OUTPUT, reference.probabilities[None])
    (folder / FILE).write_bytes(exported)
    shutil.copyfile(run_stablehlo.__file__, folder / pathlib.Path(run_stablehlo.__file__).name)
    files.write_json(folder / DESCRIPTION, describe(trained, program))
    return difference


def serialise(program: Program) -> bytearray:
    """The program for images of any number and size, as bytes that `jax.export.deserialize` reads."""
    limits = [f"height >= {program.least_side}", f"width >= {program.least_side}"]
    shape = export.symbolic_shape("batch, height, width", constraints=limits)
    images = [jax.ShapeDtypeStruct(shape, np.uint8)] * (1 + program.takes_masks)
    return export.export(jax.jit(program.run), platforms=PLATFORMS)(*images).serialize()


def _test_inputs(program: Program, reference: Reference) -> dict[str, np.ndarray]:
    """The inputs of the program for the test image, by the names of their files."""
    inputs = {TEST_IMAGE: reference.image[None]}
    if program.takes_masks:
        assert reference.mask is not None
        inputs[TEST_MASK] = reference.mask[None]
    return inputs


def describe(trained: Trained, program: Program) -> dict[str, Any]:
    """The content of `io.json`."""
    today = datetime.date.today()
    return {
        "file": FILE,
        "format": "jax.export (StableHLO)",
        "platforms": list(PLATFORMS),
        "network": trained.config.model.name,
        "inputs": _inputs(trained, program),
        "outputs": [_output(program)],
        "decision": _decision(trained.config, program),
        **_confidence(trained.calibration),
        "compatibility": {
            "exported_by": {"hep2jax": hep2jax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
            "exported_on": today.isoformat(),
            "expires": (today + _GUARANTEED).isoformat(),
            "guarantee": (
                "jax guarantees to read the program with releases of jaxlib up to three weeks older and six months "
                "newer than the one above; those after `expires` are beyond that for certain. Keep the work directory, "
                "and export again"
            ),
        },
        "test": {
            "inputs": [TEST_IMAGE, TEST_MASK][: 1 + program.takes_masks],
            "output": TEST_OUTPUT,
            "tolerance": TOLERANCE,
        },
        "medical_device": False,
    }


def _inputs(trained: Trained, program: Program) -> list[dict[str, Any]]:
    shape: dict[str, Any] = {
        "dtype": "uint8",
        "shape": ["batch", "height", "width"],
        "smallest_height_and_width": program.least_side,
    }
    image = {
        "name": "image",
        "content": "one whole field" if program.reads_fields else "the crop of one cell",
        "values": f"grey levels 0 to 255; of colour images {_CHANNELS[trained.config.data.channel]}",
        **shape,
    }
    size = trained.nuclear_size
    if size is not None:
        image["nuclear_diameter"] = size.nuclear_diameter
        image["cell_diameter"] = size.measured
        image["magnification"] = (
            "resize images so that their nuclei have this diameter in pixels, as hep2jax predict does by itself; "
            "cell_diameter is the median of what hep2jax measures in an image"
        )
    mask = {"name": "mask", "content": "the mask of the cell", "values": "0 outside the cell", **shape}
    return [image, mask] if program.takes_masks else [image]


_CHANNELS = {"grey": "the mean of the channels", "green": "the green channel"}


def _output(program: Program) -> dict[str, Any]:
    pixels = ["height", "width"] if program.reads_fields else []
    return {
        "name": "probabilities",
        "dtype": "float32",
        "shape": ["batch", *pixels, len(program.channels)],
        "channels": list(program.channels),
        "values": "probabilities that add up to 1, not calibrated",
    }


def _confidence(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {}
    return {
        "confidence": {
            "temperature": calibration.temperature[0],
            "least": calibration.least,
            "refer_below": calibration.refer_below,
            "rule": (
                "p: the probabilities of a cell, or the share of each pattern of the cell pixels of an image. The "
                "confidence is the largest entry of softmax(log(max(p, least)) / temperature)"
            ),
        }
    }


def _decision(config: Config, program: Program) -> str:
    if not program.reads_fields:
        return "the most probable pattern"
    threshold = config.evaluation.foreground_threshold
    return (
        f"a pixel is cell where 1 - background is above {threshold:g}; its pattern is the most probable one without "
        "background, and the pattern of an image is that of most cell pixels"
    )
