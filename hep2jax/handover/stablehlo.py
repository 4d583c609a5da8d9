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
from hep2jax.errors import RunError
from hep2jax.handover.programs import Program
from hep2jax.handover.reference import TOLERANCE, Reference
from hep2jax.progress import say

PLATFORMS = ("cpu", "cuda", "tpu")
FILE, RUNNER = "model.stablehlo", "run_stablehlo.py"
TEST_IMAGE, TEST_MASK, TEST_OUTPUT = "test_image.npy", "test_mask.npy", "test_output.npy"
_GUARANTEED = datetime.timedelta(days=182)
"""How much newer than the exporting jaxlib the reading one may be (https://docs.jax.dev/en/latest/export/export.html)."""


def write(folder: pathlib.Path, program: Program, reference: Reference) -> dict[str, Any]:
    """Write the program, `run_stablehlo.py` and the test image.

    Args:
        folder: an existing folder.
        program: the program.
        reference: the test image and its reading.

    Returns:
        What `io.json` says of the program.

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
    shutil.copyfile(pathlib.Path(__file__).with_name(RUNNER), folder / RUNNER)
    say(f"{FILE}: differs from hep2jax by at most {difference:.2g} on the test image")
    return _describe(program)


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


def _describe(program: Program) -> dict[str, Any]:
    today = datetime.date.today()
    shape = {"dtype": "uint8", "shape": ["batch", "height", "width"], "smallest_height_and_width": program.least_side}
    mask = {"name": "mask", "values": "0 outside the cell", **shape}
    pixels = ["height", "width"] if program.reads_fields else []
    return {
        "file": FILE,
        "format": "jax.export (StableHLO)",
        "platforms": list(PLATFORMS),
        "inputs": [{"name": "image", "values": "grey levels", **shape}, *([mask] if program.takes_masks else [])],
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", *pixels, len(program.channels)]},
        "exported_by": {"hep2jax": hep2jax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "exported_on": today.isoformat(),
        "expires": (today + _GUARANTEED).isoformat(),
        "guarantee": _GUARANTEE,
        "test": {
            "inputs": [TEST_IMAGE, TEST_MASK][: 1 + program.takes_masks],
            "output": TEST_OUTPUT,
            "tolerance": TOLERANCE,
        },
    }


_GUARANTEE = (
    "jax guarantees to read the program with releases of jaxlib up to three weeks older and six months newer than the "
    "one above; those after `expires` are beyond that for certain. Keep the work directory, and export again"
)
