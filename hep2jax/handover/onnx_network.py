"""Exports a network as ONNX. jax2onnx does it in an environment of its own, because its needs conflict with ours."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

import jax
import numpy as np

import hep2jax
from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.errors import RunError, UsageError
from hep2jax.handover.reference import TOLERANCE, Tile
from hep2jax.progress import say
from hep2jax.tasks.fields import FieldTask
from hep2jax.training import steps
from hep2jax.training.evaluation import Trained

FILE, RUNNER = "model.onnx", "run_onnx.py"
TEST_TILE, TEST_OUTPUT = "test_tile.npy", "test_tile_output.npy"
PACKAGES = ("jax2onnx", "onnxruntime")


def check(config: Config) -> None:
    """Raise UsageError if the network reads more than grey levels."""
    if config.data.masked:
        raise UsageError(
            "--formats: a network that was trained with data.masked=True can only be exported as stablehlo"
        )


def check_environment(python: str | None, packages: tuple[str, ...]) -> str:
    """The interpreter of an environment with these packages. Raises UsageError if there is none."""
    option = f"--onnx_python={python or ''}"
    if not python:
        raise UsageError(f"{option}: name the Python of an environment with {', '.join(packages)}; docs/export.md")
    line = [python, "-c", f"import {', '.join(packages)}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    except OSError as error:
        raise UsageError(f"{option}: cannot be started ({error.strerror})") from error
    if done.returncode:
        raise UsageError(f"{option}: cannot import {', '.join(packages)} ({_last_line(done)}); docs/export.md")
    return python


def run(python: str, module: str, folder: pathlib.Path) -> None:
    """Run a module of this package in the other environment. Raises RunError with its last line if it fails."""
    root = pathlib.Path(hep2jax.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    line = [python, "-m", f"hep2jax.handover.{module}", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise RunError(f"{module} failed in the environment of {python}: {_last_line(done)}")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1][:300] if lines else "no message"


def write(folder: pathlib.Path, trained: Trained, tile: Tile, python: str) -> dict[str, Any]:
    """Write the network, `run_onnx.py` and the test tile.

    Args:
        folder: an existing folder.
        trained: the network, in float32.
        tile: the test tile and its reading.
        python: the interpreter of an environment with `PACKAGES`.

    Returns:
        What `io.json` says of the network.

    Raises:
        RunError: jax2onnx cannot convert it, or it differs from hep2jax by more than is allowed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job = pathlib.Path(temporary)
        _write_job(job, trained, tile)
        run(python, "to_onnx", job)
        difference = json.loads((job / "difference.json").read_text())
        if not difference <= TOLERANCE:
            raise RunError(f"the ONNX network differs from hep2jax by {difference:.2g}; it is not written")
        shutil.copyfile(job / FILE, folder / FILE)
    np.save(folder / TEST_TILE, tile.image[None])
    np.save(folder / TEST_OUTPUT, tile.probabilities[None])
    shutil.copyfile(pathlib.Path(__file__).with_name(RUNNER), folder / RUNNER)
    say(f"{FILE}: ONNX Runtime differs from hep2jax by at most {difference:.2g} on the test tile")
    return describe(trained.config, tile)


def _write_job(folder: pathlib.Path, trained: Trained, tile: Tile) -> None:
    config = trained.config
    job = {
        "model": dataclasses.asdict(config.model),
        "outputs": tasks.num_outputs(config, trained.classes),
        "side": len(tile.image),
        "range": steps.NORMALISED_RANGE,
        "mean_centring": config.data.mean_centring and tasks.kind(config) is not FieldTask,
        "dihedral": config.evaluation.dihedral,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    leaves = jax.tree.leaves(jax.device_get(trained.parameters))
    arrays: dict[str, Any] = {f"leaf{number}": leaf for number, leaf in enumerate(leaves)}
    arrays |= {"image": tile.normalised[None, None], "probabilities": channels_first(tile.probabilities[None])}
    np.savez(folder / "arrays.npz", **arrays)


def channels_first(probabilities: np.ndarray) -> np.ndarray:
    """Maps [batch, height, width, channel] as [batch, channel, height, width]; others as they are."""
    return np.moveaxis(probabilities, -1, 1) if probabilities.ndim == 4 else probabilities


def describe(config: Config, tile: Tile) -> dict[str, Any]:
    """What `io.json` says of the network."""
    side, of_fields = len(tile.image), tasks.kind(config) is FieldTask
    levels = dict(zip(("low_percentile", "high_percentile"), tile.percentiles or (), strict=False))
    scale = {"scale": config.data.scale, "overlap": config.evaluation.tile_overlap} if of_fields else {}
    return {
        "file": FILE,
        "input": {"name": "image", "dtype": "float32", "shape": ["batch", 1, side, side]},
        "normalisation": levels or {"divide_by": 255},
        **scale,
        "output": {
            "name": "probabilities",
            "dtype": "float32",
            "shape": ["batch", tile.probabilities.shape[-1], *([side, side] if of_fields else [])],
        },
        "note": f"{_FIELDS if of_fields else _CELLS}: {_BY_PERCENTILES if levels else _BY_255}",
        "test": {"input": TEST_TILE, "output": TEST_OUTPUT, "tolerance": TOLERANCE},
    }


_FIELDS = (
    "reduce an image by area averages to `scale` times its sides, normalise it, cut it into tiles that overlap by "
    "`overlap`, and blend what is said of them. To normalise"
)
_CELLS = "resize the crop of a cell to the input's height and width, and normalise it. To normalise"
_BY_PERCENTILES = "subtract the low percentile of its grey levels, and divide by the span to the high one, at least 4"
_BY_255 = "divide the grey levels by 255"
