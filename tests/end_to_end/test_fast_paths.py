"""Crops on the device and several steps in a call train as the plain way does."""

import copy
import json

import numpy as np
import pytest

from hep2jax import config as configs
from hep2jax.errors import UsageError
from hep2jax.training import loop


def _losses(directory) -> dict[int, float]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}


def _digest(directory) -> str:
    return json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])["params_digest"]


@pytest.fixture
def rhythm(cell_config):
    """Twelve steps, a line every four, checkpoints every four."""
    cell_config.train.num_steps, cell_config.train.log_every, cell_config.train.checkpoint_every = 12, 4, 4
    cell_config.optimizer.learning_rate = 1e-4  # at a high one rounding is amplified step by step
    return cell_config


def _with(config, warp: str, steps_per_call: int):
    config = copy.deepcopy(config)
    config.data.warp, config.train.steps_per_call = warp, steps_per_call
    return configs.validate(config)


@pytest.mark.slow
def test_all_ways_train_alike_and_resume_bit_for_bit(rhythm, tmp_path, monkeypatch):
    for name, warp, steps_per_call in (("plain", "host", 1), ("fast", "device", 4)):
        loop.train(_with(rhythm, warp, steps_per_call), tmp_path / name)
    plain, fast = (_losses(tmp_path / name) for name in ("plain", "fast"))
    assert list(plain) == list(fast) == [4, 8, 12]
    np.testing.assert_allclose(list(fast.values()), list(plain.values()), rtol=3e-3)  # host crops are rounded

    def torn(this, step, *rest):
        if step == 8:
            raise KeyboardInterrupt
        return close(this, step, *rest)

    close = loop._close_window
    monkeypatch.setattr(loop, "_close_window", torn)
    with pytest.raises(KeyboardInterrupt):
        loop.train(_with(rhythm, "device", 4), tmp_path / "torn")
    monkeypatch.setattr(loop, "_close_window", close)
    loop.train(_with(rhythm, "device", 4), tmp_path / "torn")
    assert _digest(tmp_path / "torn") == _digest(tmp_path / "fast")


@pytest.mark.slow
def test_several_steps_in_a_call_train_as_one_by_one(rhythm, tmp_path):
    for name, steps_per_call in (("one", 1), ("several", 4)):
        loop.train(_with(rhythm, "device", steps_per_call), tmp_path / name)
    one, several = (list(_losses(tmp_path / name).values()) for name in ("one", "several"))
    np.testing.assert_allclose(several, one, rtol=2e-5)


@pytest.mark.parametrize("key", ["num_steps", "log_every", "checkpoint_every", "eval_every"])
def test_the_rhythm_must_fit_the_calls(rhythm, key):
    rhythm.train.eval_every, rhythm.train.steps_per_call = 4, 4
    configs.validate(rhythm)
    setattr(rhythm.train, key, 6)
    with pytest.raises(UsageError, match=f"train.{key}=6: must be a multiple of train.steps_per_call=4"):
        configs.validate(rhythm)


def test_images_that_do_not_fit_the_device_are_refused(rhythm, tmp_path, monkeypatch):
    """A device of 32 KiB, as its runtime would report it."""
    device = type(loop.jax.local_devices()[0])
    monkeypatch.setattr(device, "memory_stats", lambda self: {"bytes_limit": 2**15}, raising=False)
    with pytest.raises(UsageError, match="data.warp=device: the training images take .* use data.warp=host"):
        loop.train(_with(rhythm, "device", 1), tmp_path)
