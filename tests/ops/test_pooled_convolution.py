"""A convolution of one channel and its pool as one matrix product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import ops
from hep2jax.ops.pooled_convolution import as_product, divides


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def _plain(image, kernel, pool):
    with ops.target(ops.PLAIN):
        return ops.conv_pool(image, kernel, pool)


@pytest.mark.parametrize(
    ("height", "width", "side", "pool"),
    [
        (12, 18, 3, 2),
        (5, 9, 2, 1),
        pytest.param(78, 78, 7, 2, marks=pytest.mark.slow),
        pytest.param(11, 19, 4, 4, marks=pytest.mark.slow),
    ],
)
def test_one_product_matches_convolution_and_pool(height, width, side, pool):
    image, kernel = normal(3, height, width, 1), normal(side, side, 1, 6, seed=1)
    assert divides(height, width, side, pool)
    shape = (3, (height - side + 1) // pool, (width - side + 1) // pool, 6)

    @jax.jit
    def both(image, kernel, weights):
        pairs = [jax.vjp(lambda *inputs, f=f: f(*inputs, pool), image, kernel) for f in (as_product, _plain)]
        return [(output, *pull(weights)) for output, pull in pairs]

    got, expected = both(image, kernel, normal(*shape, seed=2))
    assert got[0].shape == shape
    np.testing.assert_allclose(got[0], expected[0], atol=3e-5)
    for ours, theirs in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * got[0].size ** 0.5 + 3e-5)


def test_equal_maxima_share_the_gradient():
    image, kernel = jnp.ones((1, 4, 10, 1)), jnp.ones((3, 3, 1, 2))
    gradient = jax.jit(jax.grad(lambda kernel: jnp.sum(as_product(image, kernel, 2))))(kernel)
    np.testing.assert_allclose(gradient, 4.0)  # four pooled pixels, each a mean of four equal windows


@pytest.mark.parametrize(("height", "width", "side", "pool"), [(78, 80, 7, 2), (13, 18, 3, 2), (14, 18, 3, 3)])
def test_sizes_that_blocks_do_not_divide_are_told_apart(height, width, side, pool):
    assert not divides(height, width, side, pool)


def test_one_product_sums_bfloat16_in_float32():
    image, kernel = normal(1, 16, 14, 1).astype(jnp.bfloat16), normal(7, 7, 1, 6, seed=1).astype(jnp.bfloat16)
    product = jax.jit(lambda image, kernel: as_product(image, kernel, 2))
    exact, got = product(image.astype(jnp.float32), kernel.astype(jnp.float32)), product(image, kernel)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32), exact, rtol=2**-8, atol=1e-5)


def _operations(platform: str, side: int, channels: int) -> str:
    with ops.target(platform):
        jaxpr = jax.make_jaxpr(lambda *args: ops.conv_pool(*args, 2))(
            np.zeros((1, side, side, channels), np.float32), np.zeros((7, 7, channels, 6), np.float32)
        )
    return str(jaxpr)


def test_which_formulation_where():
    for platform in ("cpu", "tpu"):
        assert "conv_general_dilated" not in _operations(platform, 78, 1)
        assert "conv_general_dilated" in _operations(platform, 78, 3)
        assert "conv_general_dilated" in _operations(platform, 80, 1)
    assert "conv_general_dilated" in _operations("gpu", 78, 1)
    # In blocks of columns on CPU, whatever the number of channels.
    assert "custom_vjp" in _operations("cpu", 78, 3)
    assert "custom_vjp" not in _operations("gpu", 78, 3)
