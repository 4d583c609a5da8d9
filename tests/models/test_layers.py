import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hep2jax.models import columns as packing
from hep2jax.models import grey, layers


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


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

    assert np.isfinite(jax.grad(loss)(jnp.full((2, 4, 4, 8), 5.0))).all()


def reduce_window_pool(x: jax.Array, size: int) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, size, size, 1), "VALID")


@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_and_its_gradient_match_reduce_window(size):
    x, weights = normal(2, 3 * size, 5 * size, 3), normal(2, 3, 5, 3, seed=1)
    pools = (layers.max_pool, reduce_window_pool)
    np.testing.assert_array_equal(*(pool(x, size) for pool in pools))
    ours, theirs = (jax.grad(lambda x, pool=pool: (pool(x, size) * weights).sum())(x) for pool in pools)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [2, 3])
def test_equal_maxima_share_the_gradient_of_a_pool(size):
    gradient = jax.grad(lambda x: layers.max_pool(x, size).sum())
    np.testing.assert_array_equal(
        gradient(jnp.ones((1, size, size, 1))), np.full((1, size, size, 1), 1 / size**2, "f4")
    )
    block = jnp.zeros((1, size, size, 1)).at[:, :2, 0].set(1.0)
    np.testing.assert_array_equal(gradient(block), 0.5 * block)


@pytest.mark.parametrize("level", [0, 3])
def test_no_gradient_is_lost_where_xla_computes_the_input_of_a_pool_twice(level):
    """Behind a norm and a ReLU, XLA recomputes it in the backward pass, and at level 0 with other roundings."""
    rngs = nnx.Rngs(0)
    block = nnx.List([layers.ConvNorm(8, 8, dtype=jnp.float32, rngs=rngs) for _ in range(3)])
    graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)
    image, weights = normal(4, 4, 4, 8), normal(4, 2, 2, 8, seed=1)

    def gradient(pool):
        def loss(params):
            first, second, third = nnx.merge(graphdef, params, nnx.to_pure_dict(stats))
            x = pool(second(first(image, train=True), train=True), 2)
            return (third(x, train=True) * weights).sum()

        step = jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": level})
        return jax.tree.leaves(step(nnx.to_pure_dict(params)))

    for ours, theirs in zip(gradient(layers.max_pool), gradient(reduce_window_pool), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_the_gradient_of_a_pool_keeps_its_dtype():
    x = normal(1, 4, 4, 2).astype(jnp.bfloat16)
    assert jax.grad(lambda x: layers.max_pool(x).sum())(x).dtype == jnp.bfloat16


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_is_bilinear_with_half_pixel_centres(factor):
    x = normal(2, 3, 5, 4)
    expected = jax.image.resize(x, (2, 3 * factor, 5 * factor, 4), "bilinear")
    np.testing.assert_allclose(layers.upsample(x, factor), expected, atol=2e-6)


def test_upsampling_keeps_constants_and_dtype():
    x = jnp.full((1, 4, 4, 2), 1.5, jnp.bfloat16)
    assert layers.upsample(x, 8).dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(layers.upsample(x, 8), np.float32), 1.5)


def test_depth_to_space_lays_channels_out_row_by_row():
    x = jnp.arange(2 * 3 * 8.0).reshape(1, 2, 3, 8)
    got = layers.depth_to_space(x, 2)
    assert got.shape == (1, 4, 6, 2)
    np.testing.assert_array_equal(got[0, 2:4, 4:6], np.asarray(x[0, 1, 2]).reshape(2, 2, 2))


def test_dense_up_with_a_unit_kernel_is_a_transposed_convolution():
    dense = layers.DenseUp(6, 5, factor=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = normal(2, 4, 3, 6)
    kernel = dense.conv.kernel[...].reshape(6, 2, 2, 5).transpose(1, 2, 0, 3)[::-1, ::-1]  # lax does not flip
    expected = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(dense(x), expected, atol=1e-5)


def _pooled_by_xla(image, kernel, pool):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(image, kernel, (1, 1), "VALID", dimension_numbers=numbers)
    return nnx.max_pool(x, window_shape=(pool, pool), strides=(pool, pool))


@pytest.mark.parametrize(
    ("height", "width", "side", "pool"), [(78, 78, 7, 2), (12, 18, 3, 2), (11, 19, 4, 4), (5, 9, 2, 1)]
)
def test_a_pooled_grey_convolution_matches_xla(height, width, side, pool):
    image, kernel = normal(3, height, width, 1), normal(side, side, 1, 6, seed=1)
    assert grey.divides(height, width, side, pool)
    functions = [jax.jit(lambda i, k, f=f: f(i, k, pool)) for f in (grey.pooled, _pooled_by_xla)]
    got, expected = (function(image, kernel) for function in functions)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=3e-5)
    weights = normal(*expected.shape, seed=2)
    gradients = [jax.grad(lambda i, k, f=f: (f(i, k) * weights).sum(), (0, 1))(image, kernel) for f in functions]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * expected.size**0.5 + 3e-5)


def test_equal_maxima_share_the_gradient():
    image, kernel = jnp.ones((1, 4, 10, 1)), jnp.ones((3, 3, 1, 2))
    gradient = jax.grad(lambda kernel: grey.pooled(image, kernel, 2).sum())(kernel)
    np.testing.assert_allclose(gradient, 4.0)  # four pooled pixels, each a mean of four equal windows


@pytest.mark.parametrize(("height", "width", "side", "pool"), [(78, 80, 7, 2), (13, 18, 3, 2), (14, 18, 3, 3)])
def test_sizes_that_blocks_do_not_divide_are_told_apart(height, width, side, pool):
    assert not grey.divides(height, width, side, pool)


def test_a_pooled_grey_convolution_sums_bfloat16_in_float32():
    image, kernel = normal(1, 16, 14, 1).astype(jnp.bfloat16), normal(7, 7, 1, 6, seed=1).astype(jnp.bfloat16)
    exact, got = grey.pooled(image.astype(jnp.float32), kernel.astype(jnp.float32), 2), grey.pooled(image, kernel, 2)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("columns", [1, 2])
def test_a_pool_before_the_norm_gives_what_a_pool_after_the_relu_gives(train, columns):
    """Scales of both signs: output, gradients of every parameter, running averages."""
    conv = layers.ConvNorm(3, 8, dtype=jnp.float32, rngs=nnx.Rngs(0))
    conv.norm.scale[...] = normal(8, seed=5)
    conv.norm.bias[...] = normal(8, seed=6)
    conv.norm.mean[...], conv.norm.var[...] = normal(8, seed=7), jnp.abs(normal(8, seed=8)) + 0.5
    graphdef, params, stats = nnx.split(conv, nnx.Param, nnx.BatchStat)
    x = normal(2, 6, 8, 3)

    def after(conv, x):
        return layers.max_pool(conv(x, train=train))

    def before(conv, x):
        made = conv(packing.pack(x, columns), train=train, columns=columns, pool=True)
        return packing.unpack(made, max(1, columns // 2))

    def measure(function):
        def loss(params, stats, x):
            conv = nnx.merge(graphdef, params, stats)
            y = function(conv, x)
            return (y * normal(2, 3, 4, 8, seed=9)).sum(), (y, nnx.to_pure_dict(nnx.state(conv, nnx.BatchStat)))

        pure = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
        # Compiled: a convolution that fed the pool directly had a wrong gradient only then.
        (_, measured), gradients = jax.jit(jax.value_and_grad(loss, (0, 2), has_aux=True))(*pure, x)
        return measured, gradients

    for one, other in zip(*(jax.tree.leaves(measure(function)) for function in (after, before)), strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)


@pytest.mark.parametrize("side", [3, 5])
def test_a_doubled_convolution_is_the_convolution_of_repeated_pixels(side):
    x, kernel = normal(2, 5, 6, 4), normal(side, side, 4, 3, seed=1)
    repeated = x.repeat(2, axis=1).repeat(2, axis=2)
    numbers = ("NHWC", "HWIO", "NHWC")
    expected = lax.conv_general_dilated(repeated, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    np.testing.assert_allclose(layers.doubled_conv_general(x, kernel), expected, atol=3e-5)


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
