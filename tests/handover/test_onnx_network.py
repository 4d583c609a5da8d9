"""ONNX Runtime says what hep2jax says, in an environment without hep2jax."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hep2jax import files
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig
from hep2jax.errors import RunError, UsageError
from hep2jax.handover import onnx_network, reference
from hep2jax.tasks.fields import working_pair
from hep2jax.tasks.reading import as_field
from tests.conftest import REPOSITORY
from tests.handover import networks

PYTHON = os.environ.get("HEP2JAX_ONNX_PYTHON", str(REPOSITORY / ".venv-onnx" / "bin" / "python"))
needs_onnx = pytest.mark.skipif(
    not pathlib.Path(PYTHON).exists(), reason="HEP2JAX_ONNX_PYTHON names no environment of docs/export.md"
)


def fields() -> Config:
    return Config(
        data=DataConfig(scale=0.5, crop_size=32),
        model=ModelConfig(name="unet", width=0.01),
        evaluation=EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=4, dihedral=True),
    )


def cells(name: str) -> Config:
    return Config(
        data=DataConfig(normalise="none", mean_centring=True, crop_size=0),
        model=ModelConfig(name=name),
        evaluation=EvaluationConfig(batch_size=4),
    )


@pytest.mark.slow
@needs_onnx
def test_fields(tmp_path):
    trained = networks.stirred(fields(), 0.1)
    about = onnx_network.write(tmp_path, trained, reference.make_tile(trained), PYTHON)
    files.write_json(tmp_path / "io.json", {"onnx": about})
    _run(tmp_path / "run_onnx.py", "--check")
    evaluator, _ = reference._evaluator(trained)
    for side in (100, 260):  # smaller than a tile, and of nine tiles
        pair = working_pair(as_field(reference._field(side), "an image", trained.config))
        (wanted,) = evaluator.predict(trained.parameters, [pair])
        np.save(tmp_path / "image.npy", pair[0])
        _run(tmp_path / "run_onnx.py", str(tmp_path / "image.npy"), str(tmp_path / "said.npy"))
        assert wanted.std() > 0.01
        np.testing.assert_allclose(np.load(tmp_path / "said.npy"), wanted, rtol=0, atol=reference.TOLERANCE)


@pytest.mark.slow
@needs_onnx
def test_cells_without_normalisation(tmp_path):
    trained = networks.stirred(cells("gao"), 0.2)
    tile = reference.make_tile(trained)
    about = onnx_network.write(tmp_path, trained, tile, PYTHON)
    files.write_json(tmp_path / "io.json", {"onnx": about})
    assert about["normalisation"] == {"divide_by": 255}
    assert tile.probabilities.std() > 0.01
    _run(tmp_path / "run_onnx.py", "--check")


@pytest.mark.slow
@needs_onnx
def test_what_jax2onnx_cannot_convert_is_one_line_and_writes_nothing(tmp_path):
    trained = networks.stirred(cells("dcae"), 0.01)
    with pytest.raises(RunError, match="to_onnx failed in the environment of"):
        onnx_network.write(tmp_path, trained, reference.make_tile(trained), PYTHON)
    assert not list(tmp_path.iterdir())


def _run(script: pathlib.Path, *arguments: str) -> None:
    line = [PYTHON, "-I", str(script), *arguments]
    done = subprocess.run(line, cwd=script.parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_masks_and_environments_without_the_packages_are_refused():
    config = cells("gao")
    config.data.masked = True
    with pytest.raises(UsageError, match="data.masked=True can only be exported as stablehlo"):
        onnx_network.check(config)
    with pytest.raises(UsageError, match="--onnx_python=: name the Python of an environment with jax2onnx"):
        onnx_network.check_environment(None, onnx_network.PACKAGES)
    with pytest.raises(UsageError, match="/none: cannot be started"):
        onnx_network.check_environment("/none", onnx_network.PACKAGES)
    with pytest.raises(UsageError, match="cannot import json, no_such_package .*No module named 'no_such_package'"):
        onnx_network.check_environment(sys.executable, ("json", "no_such_package"))


def test_the_description_says_how_to_normalise():
    config = fields()
    picture, maps = np.zeros((64, 64)), np.zeros((64, 64, 4), np.float32)
    tile = reference.Tile(
        image=picture.astype(np.uint8),
        normalised=picture.astype(np.float32),
        percentiles=(50.0, 95.0),
        probabilities=maps,
    )
    about = onnx_network.describe(config, tile)
    assert about["normalisation"] == {"low_percentile": 50.0, "high_percentile": 95.0}
    assert (about["scale"], about["overlap"]) == (0.5, 16)
    assert about["output"]["shape"] == ["batch", 4, 64, 64]
    assert json.loads(json.dumps(about)) == about
