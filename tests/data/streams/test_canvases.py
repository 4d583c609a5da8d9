"""Where crops are cut."""

import jax
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.streams import canvases


@pytest.mark.parametrize(("backend", "automatic"), [("gpu", True), ("tpu", True), ("cpu", False)])
def test_accelerators_cut_crops_unless_told_otherwise(monkeypatch, backend: str, automatic: bool):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert canvases.on_devices(DataConfig()) is automatic
    assert canvases.on_devices(DataConfig(warp="device"))
    assert not canvases.on_devices(DataConfig(warp="host"))
