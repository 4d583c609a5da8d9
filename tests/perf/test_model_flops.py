"""Model FLOPs are those of the network as it is published, on every platform and however the step is computed."""

import dataclasses

import pytest

from configs import cnn, fcn
from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.models import fcn as fcn_layers
from hep2jax.models import gao
from hep2jax.models.layers import scale_channels
from hep2jax.perf.model_flops import model_flops


def _gao() -> float:
    """Multiply-adds of the forward pass of a cell of 78 x 78, and those of its first layer."""
    side, channels, counts = gao.Gao.side, 1, []
    for out, kernel, pool in gao.LAYERS:
        side = side - kernel + 1
        counts.append(side**2 * kernel**2 * channels * out)
        side, channels = side // pool, out
    counts += [side**2 * channels * gao.HIDDEN, gao.HIDDEN * 6]
    return 2 * (3 * sum(counts) - counts[0])  # forward and both gradients; none for the image


def test_a_step_of_gao_by_hand():
    counted = model_flops(tasks.resolve(cnn.get_config()), 6, 64) / 64
    # The optimizer, pools and tanh are counted too: one operation a number.
    assert _gao() < counted < 1.15 * _gao()


def test_a_step_of_fcn_by_hand():
    config = fcn.get_config()
    side, channels, counts = config.data.crop_size, 1, []
    for published, depth in fcn_layers.VGG16_STAGES:
        out = scale_channels(published, config.model.width)
        for _ in range(depth):
            counts.append(side**2 * 9 * channels * out)
            channels = out
        side //= 2
    top = scale_channels(fcn_layers.TOP_CHANNELS, config.model.width)
    counts += [side**2 * 9 * channels * top, side**2 * top * top]
    by_hand = 2 * (3 * sum(counts) - counts[0])
    # Taps that meet padding are not counted; blocks of columns, which CPUs compute, would make it a fifth more.
    assert 0.95 * by_hand < model_flops(config, 9, 16) / 16 < 1.1 * by_hand


def _with(config: Config, **sections: dict[str, object]) -> Config:
    changed = {name: dataclasses.replace(getattr(config, name), **keys) for name, keys in sections.items()}
    return dataclasses.replace(config, **changed)


@pytest.mark.parametrize("change", [{"data": {"warp": "device"}}, {"train": {"steps_per_call": 2, "num_steps": 1500}}])
def test_how_a_step_is_fed_and_called_changes_nothing(change: dict[str, dict[str, object]]):
    config = tasks.resolve(cnn.get_config())
    assert model_flops(_with(config, **change), 6, 4) == model_flops(config, 6, 4)
