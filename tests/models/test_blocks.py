"""Convolutions in blocks of columns compute what XLA's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax.config import Config, ModelConfig
from hep2jax.models import blocks, grey, layers
from hep2jax.training import state as states


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _compiled(function, image, kernel, stride, padding="SAME"):
    """The convolution and both gradients of a weighted sum of it."""

    def loss(image, kernel):
        made = function(image, kernel, stride, padding)
        weights = normal(*made.shape, seed=2)
        return (made.astype(jnp.float32) * weights).sum(), made

    (_, made), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(image, kernel)
    return made, *gradients


@pytest.mark.parametrize(
    ("side", "stride", "size", "channels", "padding"),
    [
        (3, 1, (8, 16), (8, 8), "SAME"),
        (3, 1, (9, 12), (16, 8), "SAME"),
        (3, 1, (6, 7), (8, 16), "SAME"),
        (3, 1, (7, 9), (40, 8), "SAME"),
        (3, 2, (9, 12), (8, 16), "SAME"),
        (3, 2, (6, 7), (1, 8), "SAME"),
        (4, 1, (6, 7), (6, 5), "SAME"),
        (4, 2, (9, 12), (8, 8), "SAME"),
        (5, 1, (5, 1), (1, 8), "SAME"),
        (7, 2, (18, 15), (1, 16), "SAME"),
        (1, 1, (5, 6), (8, 8), "SAME"),
        (4, 1, (36, 35), (6, 16), "VALID"),
        (3, 1, (11, 11), (16, 32), "VALID"),
        (3, 2, (9, 12), (8, 16), "VALID"),
        (7, 1, (7, 9), (1, 6), "VALID"),
    ],
)
def test_convolution_and_gradients(side, stride, size, channels, padding):
    image, kernel = normal(2, *size, channels[0]), normal(side, side, *channels, seed=1)
    for got, expected in zip(
        *(_compiled(function, image, kernel, stride, padding) for function in (blocks.convolution, grey.convolution)),
        strict=True,
    ):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [(1, 8), (8, 8), (16, 16)])
def test_bfloat16_is_summed_in_float32(channels):
    image, kernel = normal(2, 8, 16, channels[0]), normal(3, 3, *channels, seed=1)
    image, kernel = image.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    exact = _compiled(grey.convolution, image.astype(jnp.float32), kernel.astype(jnp.float32), 1)
    for ours, right in zip(_compiled(blocks.convolution, image, kernel, 1), exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float32), right, rtol=2**-7, atol=2**-7 * np.abs(right).max())
    forward = np.asarray(jax.jit(blocks.convolution)(image, kernel), np.float32)
    np.testing.assert_allclose(forward, exact[0], rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_a_fence_changes_nothing(dtype):
    x = (3 * normal(2, 3)).astype(dtype)
    made = jax.jit(lambda x: blocks.fence(x, x[0, 0] == 77))(x)
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, x)


def test_a_broken_kernel_gives_no_numbers():
    """What a fence does where it should not: nothing that passes for a gradient."""
    kernel = normal(3, 3, 8, 8).at[0, 0, 0, 0].set(jnp.inf)
    _, image_gradient, kernel_gradient = _compiled(blocks.convolution, normal(1, 4, 4, 8), kernel, 1)
    assert np.isnan(image_gradient).all()
    assert np.isnan(kernel_gradient).all()


def test_other_platforms_have_xlas_own():
    image, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((3, 3, 8, 8))
    text = jax.jit(jax.grad(lambda k: blocks.convolution(image, k).sum())).trace(kernel)
    lowered = text.lower(lowering_platforms=("tpu",)).as_text()
    assert "while" not in lowered
    assert "8x8x8x8xf32" not in lowered
    assert "while" in text.lower(lowering_platforms=("cpu",)).as_text()


def _plain_pool(x, size=2):
    return nnx.max_pool(x, window_shape=(size, size), strides=(size, size))


def test_a_network_in_blocks_is_the_same_network(monkeypatch):
    """Compiled, pools and norms around the convolutions: output, gradients of every parameter, running averages."""
    network = states.make_network(Config(model=ModelConfig(name="fcn", width=0.125)), 9)
    model = network.build(jax.random.key(0))
    for path, module in nnx.iter_graph(model):
        if isinstance(module, layers.BatchNorm):  # scales of both signs
            module.scale[...] = normal(*module.scale[...].shape, seed=len(path))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    # With another image a ReLU's input may lie so near to 0 that the last digits decide its gradient.
    image, weights = normal(2, 64, 64, 1, seed=3), normal(2, 64, 64, 9, seed=1)

    def measure(convolution, max_pool):
        monkeypatch.setattr(blocks, "convolution", convolution)
        monkeypatch.setattr(layers, "max_pool", max_pool)

        def loss(params, stats):
            model = nnx.merge(graphdef, params, stats)
            logits = model(image, train=True, rngs=nnx.Rngs(dropout=0)).logits
            return (logits * weights).mean(), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        (_, measured), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
        return measured, gradients

    ways = (grey.convolution, _plain_pool), (blocks.convolution, layers.max_pool)
    for one, other in zip(*(jax.tree.leaves(measure(*way)) for way in ways), strict=True):
        assert jnp.abs(one - other).max() <= 2e-4 * jnp.abs(one).max() + 1e-7
