"""Several columns of an image as the channels of one pixel, for TPUs.

A TPU lays an activation's channels out in 128 lanes and multiplies 128 x 128 matrices; convolutions of 64 channels fill
a quarter of them. Where the columns of an image stand side by side in the channels, [b, h, w, c] as [b, h, w / n, n c],
the same convolution, with a kernel that is zero where a column is out of its reach, fills them: n times the arithmetic
in a shape that costs half or less. By the TPU compiler's estimate (v5e, two 3x3 convolutions of 64 channels with
BatchNorm, 32 images of 256 x 256, forward and backward, copies at their borders apart) 25.6 ms become 13.2. The
rearrangement itself is free only where a whole stage works on it: so a stage is packed at its beginning and unpacked by
its pool.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

LANES = 128


def columns_for(channels: int, lanes: int, width: int) -> int:
    """How many columns of `width` fill the lanes with `channels` channels each; 1: leave them as they are."""
    count = lanes // channels if lanes else 1
    while count > 1 and width % (2 * count):  # a pool must be able to follow
        count //= 2
    return max(1, count)


def pack(x: Float[Array, "b h w c"], columns: int) -> Float[Array, "b h w2 c2"]:
    """`columns` neighbouring columns → channels (column, channel) of one."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width // columns, columns * channels)


def unpack(x: Float[Array, "b h w2 c2"], columns: int) -> Float[Array, "b h w c"]:
    """Inverse of `pack`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width * columns, channels // columns)


def batch_in_lanes(x: Float[Array, "b h w c"], lanes: int, devices: int) -> Float[Array, "b h w c"]:
    """The same numbers; where the channels leave lanes empty and a device's share of the batch does not, the compiler
    is told to lay the batch in the lanes.

    Left to itself it lays 64 channels in 128 lanes between two stages. By its estimate, on a v5e with 128 images of
    256 x 256, the second convolution of `fcn`, its pool and the two convolutions behind take 88.0 ms laid out like this
    and 94.7 without. What took longer at 32 images (21.1 ms): two rows stacked in the channels 22.3, pairs of pooled
    columns packed for one convolution 28.2, for one convolution of even and one of odd columns 27.1.
    """
    if not lanes or x.shape[3] >= lanes or x.shape[0] % (lanes * devices):
        return x
    return with_layout_constraint(x, Layout(major_to_minor=(1, 2, 3, 0)))


def convolution(
    x: Float[Array, "b h w2 c2"], kernel: Float[Array, "i j c k"], columns: int
) -> Float[Array, "b h w2 k2"]:
    """SAME convolution of stride 1 of a packed image with an odd-sided kernel of the unpacked one."""
    taps = _taps(kernel.shape[1], columns)
    wide = jnp.einsum("ptio,hpck->hticok", taps.astype(kernel.dtype), kernel)
    wide = wide.reshape(kernel.shape[0], taps.shape[1], x.shape[-1], -1)
    return lax.conv_general_dilated(x, wide, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _taps(width: int, columns: int) -> np.ndarray:
    """[tap of the kernel, tap of the packed one, column read, column made]: 1 where they are the same pixel."""
    reach = -(-(width // 2) // columns)
    tap, packed, read, made = np.indices((width, 2 * reach + 1, columns, columns))
    return made + tap - width // 2 == (packed - reach) * columns + read


def max_pool(x: Float[Array, "b h w2 c2"], columns: int) -> Float[Array, "b h3 w2 c3"]:
    """2x2 max pool of a packed image: the result holds half as many columns side by side.

    Rows first, then slices of the channels. By the TPU compiler's estimate, with the convolutions around it, 19.6 ms;
    with pairs of rows as a maximum of slices 25.8; with an axis for the pairs of columns the pool alone takes 19.3.
    """
    rows = nnx.max_pool(x, window_shape=(2, 1), strides=(2, 1))
    parts = jnp.split(rows, columns, axis=-1)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return jnp.concatenate([jnp.maximum(left, right) for left, right in pairs], axis=-1)
