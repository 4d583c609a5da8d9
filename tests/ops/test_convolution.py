"""Convolutions in blocks of columns and of doubled pixels compute what XLA's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hep2jax import ops
from hep2jax.config import Config, ModelConfig
from hep2jax.models import layers
from hep2jax.ops import blocks
from hep2jax.training import state as states


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def _in_blocks(image, kernel, stride=1, padding="SAME"):
    return blocks.conv2d(image, kernel, stride, padding)


def _plain(image, kernel, stride=1, padding="SAME"):
    with ops.target(ops.PLAIN):
        return ops.conv2d(image, kernel, stride=stride, padding=padding)


def _compiled(function, image, kernel, *how):
    """The convolution and both gradients of a weighted sum of it."""

    def loss(image, kernel):
        result = function(image, kernel, *how)
        weights = normal(*result.shape, seed=2)
        return (result.astype(jnp.float32) * weights).sum(), result

    (_, result), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(image, kernel)
    return result, *gradients


@pytest.mark.parametrize(
    ("side", "stride", "size", "channels", "padding"),
    [
        pytest.param(3, 1, (8, 16), (8, 8), "SAME", marks=pytest.mark.slow),
        (3, 1, (9, 12), (16, 8), "SAME"),
        (3, 1, (6, 7), (8, 16), "SAME"),
        pytest.param(3, 1, (7, 9), (40, 8), "SAME", marks=pytest.mark.slow),
        (3, 2, (9, 12), (8, 16), "SAME"),
        (3, 2, (6, 7), (1, 8), "SAME"),
        (4, 1, (6, 7), (6, 5), "SAME"),
        pytest.param(4, 2, (9, 12), (8, 8), "SAME", marks=pytest.mark.slow),
        (5, 1, (5, 1), (1, 8), "SAME"),
        (7, 2, (18, 15), (1, 16), "SAME"),
        (1, 1, (5, 6), (8, 8), "SAME"),
        pytest.param(4, 1, (36, 35), (6, 16), "VALID", marks=pytest.mark.slow),
        pytest.param(3, 1, (11, 11), (16, 32), "VALID", marks=pytest.mark.slow),
        (3, 2, (9, 12), (8, 16), "VALID"),
        (7, 1, (7, 9), (1, 6), "VALID"),
    ],
)
def test_convolution_and_gradients(side, stride, size, channels, padding):
    image, kernel = normal(2, *size, channels[0]), normal(side, side, *channels, seed=1)
    for got, expected in zip(
        *(_compiled(function, image, kernel, stride, padding) for function in (_in_blocks, _plain)),
        strict=True,
    ):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [(1, 8), (8, 8), (16, 16)])
def test_bfloat16_is_summed_in_float32(channels):
    image, kernel = normal(2, 8, 16, channels[0]), normal(3, 3, *channels, seed=1)
    image, kernel = image.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    exact = _compiled(_plain, image.astype(jnp.float32), kernel.astype(jnp.float32))
    for ours, right in zip(_compiled(_in_blocks, image, kernel), exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float32), right, rtol=2**-7, atol=2**-7 * np.abs(right).max())
    forward = np.asarray(jax.jit(_in_blocks)(image, kernel), np.float32)
    np.testing.assert_allclose(forward, exact[0], rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_a_fence_changes_nothing(dtype):
    x = (3 * normal(2, 3)).astype(dtype)
    result = jax.jit(lambda x: blocks.fence(x, x[0, 0] == 77))(x)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, x)


def test_a_broken_kernel_gives_no_numbers():
    """What a fence does where it should not: nothing that passes for a gradient."""
    kernel = normal(3, 3, 8, 8).at[0, 0, 0, 0].set(jnp.inf)
    _, image_gradient, kernel_gradient = _compiled(_in_blocks, normal(1, 4, 4, 8), kernel)
    assert np.isnan(image_gradient).all()
    assert np.isnan(kernel_gradient).all()


def test_other_platforms_have_xlas_own():
    """The same compiled function is traced anew for each target."""
    image, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((3, 3, 8, 8))
    gradient = jax.jit(jax.grad(lambda k: ops.conv2d(image, k).sum()))
    texts = {}
    for platform in ("cpu", "tpu", "gpu", ops.PLAIN):
        with ops.target(platform):
            texts[platform] = gradient.lower(kernel).as_text()
    assert "while" in texts["cpu"]
    assert "while" not in texts[ops.PLAIN]
    assert "8x8x8x8xf32" not in texts[ops.PLAIN]
    assert texts["tpu"] == texts["gpu"] == texts[ops.PLAIN]


@pytest.mark.slow
def test_a_network_for_cpus_is_the_same_network():
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

    def measure(platform):
        def loss(params, stats):
            model = nnx.merge(graphdef, params, stats)
            logits = model(image, train=True, rngs=nnx.Rngs(dropout=0)).logits
            return (logits * weights).mean(), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        with ops.target(platform):
            (_, measured), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
        return measured, gradients

    for one, other in zip(*(jax.tree.leaves(measure(platform)) for platform in (ops.PLAIN, "cpu")), strict=True):
        assert jnp.abs(one - other).max() <= 2e-4 * jnp.abs(one).max() + 1e-7


@pytest.mark.parametrize("side", [3, 5])
def test_a_doubled_convolution_is_the_convolution_of_repeated_pixels(side):
    x, kernel = normal(2, 5, 6, 4), normal(side, side, 4, 3, seed=1)
    repeated = x.repeat(2, axis=1).repeat(2, axis=2)
    numbers = ("NHWC", "HWIO", "NHWC")
    expected = lax.conv_general_dilated(repeated, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    np.testing.assert_allclose(ops.doubled_conv2d(x, kernel), expected, atol=3e-5)


@pytest.mark.parametrize(("side", "strides"), [(3, (1, 1)), (3, (2, 2)), (5, (1, 1)), (5, (2, 2))])
def test_a_depthwise_convolution_of_shifted_images(side, strides):
    x, kernel = normal(2, 7, 8, 6), normal(side, side, 1, 6, seed=1)
    result = []
    for platform in ("cpu", ops.PLAIN):
        with ops.target(platform):
            result.append(jax.jit(ops.depthwise_conv2d, static_argnums=2)(x, kernel, strides))
    np.testing.assert_allclose(*result, atol=1e-5)
