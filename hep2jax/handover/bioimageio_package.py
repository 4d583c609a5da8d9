"""Packs the ONNX network for bioimage.io, whose programs (among them Fiji's deepImageJ) read ONNX but no StableHLO."""

import json
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

import hep2jax
from hep2jax.handover import card, description, onnx_network
from hep2jax.handover.programs import Program
from hep2jax.handover.reference import TOLERANCE, Tile
from hep2jax.progress import say
from hep2jax.training.evaluation import Trained

FILE = "model.bioimageio.zip"
PACKAGES = ("bioimageio.core", "onnx")


def write(
    folder: pathlib.Path, trained: Trained, program: Program, tile: Tile, documentation: str, python: str
) -> dict[str, Any]:
    """Write the package of the ONNX network that `onnx_network.write` has written to this folder.

    Args:
        folder: the folder.
        trained: the network.
        program: what is exported of it.
        tile: the test tile and its reading.
        documentation: the model card.
        python: the interpreter of an environment with `PACKAGES`.

    Returns:
        What `io.json` says of the package.

    Raises:
        RunError: it does not pass the test of bioimageio.core.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job = pathlib.Path(temporary)
        shutil.copyfile(folder / onnx_network.FILE, job / onnx_network.FILE)
        about = _job(trained, program, tile)
        (job / card.FILE).write_text(documentation + _USE.format(**about), encoding="utf-8")
        np.save(job / "test_input.npy", tile.image[None, None].astype(np.float32))
        np.save(job / "test_output.npy", onnx_network.channels_first(tile.probabilities[None]))
        (job / "job.json").write_text(json.dumps(about), encoding="utf-8")
        onnx_network.run(python, "to_bioimageio", job)
        shutil.copyfile(job / FILE, folder / FILE)
    say(f"{FILE}: passes the test of bioimageio.core")
    return {"file": FILE}


_USE = """
## Input and output

Input: {reads}, one channel. What the package's programs do with the grey levels before the network is declared in
`rdf.yaml`, from the statistics of the whole image. In full: {note}.

Output: the probability of each channel. Decision: {decision}.

## Validation

The figures above are those of hep2jax with the same network. `test_input.npy` and `test_output.npy` hold a synthetic
image and the probabilities that hep2jax gives for it.
"""


def _job(trained: Trained, program: Program, tile: Tile) -> dict[str, Any]:
    config, of = trained.config, "fields" if program.reads_fields else "cells"
    about = onnx_network.describe(config, tile)
    said = description.common(trained, program)
    return {
        "file": FILE,
        "about": {
            "name": f"HEp-2 staining patterns of {of} by {config.model.name} (hep2jax)",
            "description": f"Names the staining pattern of HEp-2 {of}. Research software, not a medical device.",
            "version": hep2jax.__version__,
            "tags": ["hep-2", "immunofluorescence", "autoantibodies", of, "jax"],
        },
        "facts": {
            "modality": "indirect immunofluorescence",
            "target_structure": ["HEp-2 cells"],
            "task": "semantic segmentation" if program.reads_fields else "image classification",
            "out_of_scope_use": "Diagnosis and treatment: this is no medical device.",
        },
        "reads": f"{said['reads']}, grey levels {said['grey_levels']}",
        "note": about["note"],
        "decision": said["decision"],
        "side": len(tile.image),
        "maps": program.reads_fields,
        "halo": config.evaluation.tile_overlap // 2,
        "normalisation": about["normalisation"],
        "channels": list(program.channels),
        "tolerance": TOLERANCE,
    }
