"""Columns side by side compute what the plain image does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax import ops
from hep2jax.config import Config, ModelConfig
from hep2jax.ops import lanes, plain
from hep2jax.training import state as states


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 256, 2), (8, 128, 16), (8, 48, 8), (128, 64, 1), (96, 64, 1), (256, 64, 1)],
)
def test_as_many_columns_as_fill_the_lanes_and_leave_a_pool_whole(channels, width, expected):
    assert lanes.columns_for(channels, width) == expected


@pytest.mark.parametrize(("side", "count"), [(3, 2), (3, 8), (5, 2), (7, 2), (1, 4)])
def test_convolution(side: int, count: int):
    x, kernel = jnp.asarray(_noise(2, 6, 16, 3)), jnp.asarray(_noise(side, side, 3, 5, seed=1))
    result = ops.conv2d(lanes.join(x, count), kernel)
    assert isinstance(result, lanes.Columns)
    np.testing.assert_allclose(lanes.split(result), plain.conv2d(x, kernel), atol=2e-5)


@pytest.mark.parametrize("how", [{"stride": 2}, {"padding": "VALID"}])
def test_other_convolutions_are_refused(how):
    with pytest.raises(ValueError, match="must be 1 and SAME"):
        ops.conv2d(lanes.join(jnp.zeros((1, 4, 4, 3)), 2), jnp.zeros((3, 3, 3, 3)), **how)


def test_other_pools_are_refused():
    with pytest.raises(ValueError, match="must be 2"):
        ops.max_pool(lanes.join(jnp.zeros((1, 6, 6, 3)), 2), 3)


@pytest.mark.parametrize("count", [2, 4])
def test_max_pool(count: int):
    x = jnp.asarray(_noise(2, 6, 16, 3))
    np.testing.assert_array_equal(lanes.split(ops.max_pool(lanes.join(x, count))), plain.max_pool(x))


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
        return (lanes.batch_in_lanes(x, devices) ** 2).sum()

    assert ("layout_constraint" in str(jax.make_jaxpr(loss)(x))) == laid
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), 2 * x, rtol=1e-6)


def test_other_platforms_leave_the_image_as_it_is():
    """A stage is given the image itself, and what it makes is returned."""
    x = jnp.asarray(_noise(128, 2, 2, 8))
    for platform in ("cpu", "gpu", ops.PLAIN):
        with ops.target(platform):
            assert ops.stage(lambda given: given, x, channels=8) is x


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_a_network_in_lanes_is_the_same_network(train: bool):
    """`fcn` of 16, 32, 64, 128 channels in its stages, 8, 4, 2 and 1 columns at once: output, gradients, averages."""
    config = Config(model=ModelConfig(name="fcn", width=0.25))
    network = states.make_network(config, 9)
    _, params, stats = nnx.split(network.build(jax.random.key(0)), nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    image, weights = _noise(2, 64, 64, 1), _noise(2, 64, 64, 9, seed=1)

    def measure(platform):
        def loss(params, stats):
            model = nnx.merge(network.graphdef, params, stats)
            logits = model(jnp.asarray(image), train=train).logits
            return (logits * weights).mean(), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        with ops.target(platform):
            (_, measured), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
        return measured, gradients

    for one, other in zip(*(jax.tree.leaves(measure(platform)) for platform in (ops.PLAIN, "tpu")), strict=True):
        assert jnp.abs(one - other).max() <= 2e-4 * jnp.abs(one).max() + 1e-7
