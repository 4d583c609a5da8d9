import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hep2jax import ops
from hep2jax.models import layers


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (64, 0.125, 8), (64, 0.01, 8), (100, 1.0, 96), (512, 0.3, 152), (64, 2.0, 128)],
)
def test_scaled_channels_are_multiples_of_8(channels, width, expected):
    assert layers.scale_channels(channels, width) == expected


@pytest.fixture
def norm() -> layers.BatchNorm:
    norm = layers.BatchNorm(16)
    norm.mean[...] = 3.0 + normal(16, seed=1)
    norm.var[...] = jnp.exp(normal(16, seed=2))
    norm.scale[...] = 1.0 + 0.3 * normal(16, seed=3)
    norm.bias[...] = normal(16, seed=4)
    return norm


def exact_norm(x, mean, var, norm) -> np.ndarray:
    x, mean, var, scale, bias = (np.asarray(a, np.float64) for a in (x, mean, var, norm.scale[...], norm.bias[...]))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize(("dtype", "relative"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2.0**-8)])
def test_evaluation_with_bfloat16_errs_by_the_rounding_of_its_output_only(norm, dtype, relative):
    x = (3.0 + normal(4, 6, 6, 16)).astype(dtype)
    exact = exact_norm(x, norm.mean[...], norm.var[...], norm)
    got = norm(x, train=False)
    assert got.dtype == dtype
    assert np.max(np.abs(np.asarray(got, np.float64) - exact) - relative * np.abs(exact)) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_training_statistics_are_float32_and_exact(norm, dtype):
    x = (3.0 + normal(4, 6, 6, 16)).astype(dtype)
    before = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    values = np.asarray(x, np.float64)
    mean, var = values.mean((0, 1, 2)), values.var((0, 1, 2))
    got = norm(x, train=True)
    np.testing.assert_allclose(np.asarray(got, np.float64), exact_norm(x, mean, var, norm), rtol=2**-8, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.9 * before[0] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 * before[1] + 0.1 * var, rtol=1e-4)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(norm))} == {jnp.dtype(jnp.float32)}


def test_a_constant_channel_has_a_finite_gradient():
    graphdef, state = nnx.split(layers.BatchNorm(8))
    values = nnx.to_pure_dict(state)

    def loss(x):
        return (nnx.merge(graphdef, values)(x, train=True) * normal(2, 4, 4, 8)).sum()

    assert np.isfinite(jax.jit(jax.grad(loss))(np.full((2, 4, 4, 8), 5, np.float32))).all()


def test_dense_up_with_a_unit_kernel_is_a_transposed_convolution():
    dense = layers.DenseUp(6, 5, factor=2, dtype=jnp.dtype(jnp.float32), rngs=nnx.Rngs(0))
    x = normal(2, 4, 3, 6)
    kernel = dense.conv.kernel[...].reshape(6, 2, 2, 5).transpose(1, 2, 0, 3)[::-1, ::-1]  # lax does not flip
    expected = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(dense(x), expected, atol=1e-5)


def test_dropout_keeps_the_mean_and_follows_its_key():
    x = jnp.ones((64, 64))

    def drop(seed):
        return layers.dropout(x, 0.25, train=True, rngs=nnx.Rngs(dropout=seed))

    assert np.mean(drop(0) == 0) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(drop(0)[drop(0) > 0], 1 / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(drop(0), drop(0))
    assert (drop(0) != drop(1)).any()
    np.testing.assert_array_equal(layers.dropout(x, 0.25, train=False, rngs=None), x)
    with pytest.raises(ValueError, match="rngs"):
        layers.dropout(x, 0.25, train=True, rngs=None)


@pytest.mark.parametrize("use_bias", [True, False])
def test_blocks_are_the_image_before_depth_to_space(use_bias: bool):
    dense = layers.DenseUp(
        6, 5, factor=2, kernel_size=3, use_bias=use_bias, dtype=jnp.dtype(jnp.float32), rngs=nnx.Rngs(0)
    )
    if use_bias:
        dense.conv.bias[...] = jnp.arange(20.0)
    x = jax.random.normal(jax.random.key(1), (2, 4, 6, 6))
    blocks = dense(x, in_blocks=True)
    assert blocks.shape == (2, 4, 6, 4, 5)
    image = ops.depth_to_space(blocks.reshape(2, 4, 6, 20), 2)
    np.testing.assert_allclose(image, dense(x), atol=1e-5)
