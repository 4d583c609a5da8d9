"""The TPU compiler's estimates of whole steps stay what they are; a slower program or one of more memory is noticed."""

import importlib.metadata
import importlib.util
import json
import pathlib

import pytest

import hep2jax
from hep2jax import tasks
from hep2jax.perf import aot

LIBTPU = "0.0.52"
STORED = {
    ("fcn.py:published", 8): (9.176e-3, 807.9e6),
    ("cnn.py:published", 128): (0.0004287, 63.8e6),
}
"""(configuration, images on a v5e) → (seconds of a step, bytes in HBM), by this version of the compiler."""


def _version() -> str:
    return importlib.metadata.version("libtpu") if importlib.util.find_spec("libtpu") else "none"


@pytest.mark.slow
@pytest.mark.skipif(_version() != LIBTPU, reason=f"the stored estimates are those of libtpu {LIBTPU}, not {_version()}")
@pytest.mark.parametrize(("name", "images"), STORED)
def test_a_step_costs_what_it_did(name: str, images: int, tmp_path: pathlib.Path):
    options = aot.Options(slices=aot.Options.parse("v5e:1").slices, batches=[images], cache=tmp_path / "cache")
    aot.run(tasks.resolve(hep2jax.load_config(name)), tmp_path / "run", options)
    values = json.loads((tmp_path / "run" / "profile" / "compile.json").read_text())
    (found,) = values["generations"]["v5e"]["slices"]
    seconds, size = STORED[name, images]
    assert found["step_seconds"] == pytest.approx(seconds, rel=0.03)
    assert found["memory"]["total"] == pytest.approx(size, rel=0.03)
