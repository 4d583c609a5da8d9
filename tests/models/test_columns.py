"""Packed columns compute what the plain image does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hep2jax.config import Config, ModelConfig
from hep2jax.models import columns
from hep2jax.training import state as states


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "lanes", "width", "expected"),
    [(64, 128, 256, 2), (8, 128, 128, 16), (8, 128, 48, 8), (128, 128, 64, 1), (96, 128, 64, 1), (64, 0, 256, 1)],
)
def test_as_many_columns_as_fill_the_lanes_and_leave_a_pool_whole(channels, lanes, width, expected):
    assert columns.columns_for(channels, lanes, width) == expected


@pytest.mark.parametrize(("side", "count"), [(3, 2), (3, 8), (5, 2), (7, 2), (1, 4)])
def test_convolution(side: int, count: int):
    x, kernel = _noise(2, 6, 16, 3), _noise(side, side, 3, 5, seed=1)
    expected = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    made = columns.unpack(columns.convolution(columns.pack(x, count), kernel, count), count)
    np.testing.assert_allclose(made, expected, atol=2e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_max_pool(count: int):
    x = _noise(2, 6, 16, 3)
    made = columns.unpack(columns.max_pool(columns.pack(x, count), count), count // 2)
    np.testing.assert_array_equal(made, nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)))


@pytest.mark.parametrize(
    ("shape", "devices", "laid"),
    [
        ((256, 2, 2, 64), 2, True),
        ((128, 2, 2, 64), 1, True),
        ((128, 2, 2, 64), 2, False),
        ((96, 2, 2, 64), 1, False),
        ((128, 2, 2, 128), 1, False),
    ],
)
def test_the_batch_goes_into_the_lanes_where_it_fills_them_and_the_channels_do_not(shape, devices: int, laid: bool):
    x = _noise(*shape)

    def loss(x):
        return (columns.batch_in_lanes(x, 128, devices) ** 2).sum()

    assert ("layout_constraint" in str(jax.make_jaxpr(loss)(x))) == laid
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), 2 * x, rtol=1e-6)


def test_other_platforms_lay_the_batch_where_they_like():
    x = _noise(128, 2, 2, 8)
    assert columns.batch_in_lanes(x, 0, 1) is x


@pytest.mark.parametrize("train", [True, False])
def test_a_network_in_lanes_is_the_same_network(train: bool):
    """`fcn` of 16, 32, 64 and 128 channels in its stages, packed by 8, 4, 2 and not: output, gradients, statistics."""
    config = Config(model=ModelConfig(name="fcn", width=0.25))
    plain, packed = (states.make_network(config, 9, platform=platform) for platform in ("", "tpu"))
    _, params, stats = nnx.split(plain.build(jax.random.key(0)), nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    image, weights = _noise(2, 64, 64, 1), _noise(2, 64, 64, 9, seed=1)

    def measure(network):
        def loss(params, stats):
            model = nnx.merge(network.graphdef, params, stats)
            logits = model(image, train=train).logits
            return (logits * weights).mean(), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        (_, measured), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
        return measured, gradients

    for one, other in zip(*(jax.tree.leaves(measure(network)) for network in (plain, packed)), strict=True):
        assert jnp.abs(one - other).max() <= 2e-4 * jnp.abs(one).max() + 1e-7
