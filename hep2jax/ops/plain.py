"""XLA's own convolution and pool: used where no other formulation is faster, and the reference for the others."""

from collections.abc import Sequence

from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Padding = str | Sequence[tuple[int, int]]
"""`SAME`, `VALID`, or the numbers of pixels (before, after) along rows and along columns."""


def conv2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c_per_group k"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    *,
    groups: int = 1,
) -> Float[Array, "b h2 w2 k"]:
    """Cross-correlation, channels last."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, feature_group_count=groups)


def max_pool(x: Float[Array, "b h w c"], size: int = 2) -> Float[Array, "b h2 w2 c"]:
    """Maximum over `size` x `size` pixels with a stride of `size`, by `reduce_window`."""
    return nnx.max_pool(x, window_shape=(size, size), strides=(size, size))
