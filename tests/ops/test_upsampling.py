"""Up-sampling by matrix products, and from channels to pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import ops


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_is_bilinear_with_half_pixel_centres(factor):
    x = normal(2, 3, 5, 4)
    expected = jax.image.resize(x, (2, 3 * factor, 5 * factor, 4), "bilinear")
    np.testing.assert_allclose(ops.upsample(x, factor), expected, atol=2e-6)


def test_upsampling_keeps_constants_and_dtype():
    x = jnp.full((1, 4, 4, 2), 1.5, jnp.bfloat16)
    assert ops.upsample(x, 8).dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(ops.upsample(x, 8), np.float32), 1.5)


def test_depth_to_space_lays_channels_out_row_by_row():
    x = jnp.arange(2 * 3 * 8.0).reshape(1, 2, 3, 8)
    got = ops.depth_to_space(x, 2)
    assert got.shape == (1, 4, 6, 2)
    np.testing.assert_array_equal(got[0, 2:4, 4:6], np.asarray(x[0, 1, 2]).reshape(2, 2, 2))


def test_blocks_of_pixels_become_channels_and_pixels_again():
    x = normal(2, 6, 4, 3)
    folded = ops.space_to_depth(x, 2)
    assert folded.shape == (2, 3, 2, 12)
    np.testing.assert_array_equal(folded[:, 1, 1, 3:6], x[:, 2, 3])
    np.testing.assert_array_equal(ops.depth_to_space(folded, 2), x)
