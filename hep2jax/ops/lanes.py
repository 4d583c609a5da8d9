"""Several columns of an image as the channels of one pixel, for TPUs.

A TPU lays an activation's channels out in 128 lanes and multiplies 128 x 128 matrices; convolutions of 64 channels fill
a quarter of them. Where the columns of an image stand side by side in the channels, [b, h, w, c] as [b, h, w / n, n c],
the same convolution, with a kernel that is zero where a column is out of its reach, fills them: n times the arithmetic
in a shape that costs half or less. By the TPU compiler's estimate (v5e, two 3x3 convolutions of 64 channels with
BatchNorm, 32 images of 256 x 256, forward and backward, copies at their borders apart) 25.6 ms become 13.2. The
rearrangement itself is free only where a whole stage works on it: so the columns are joined at the beginning
of a stage and split behind its pool.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from hep2jax.ops import plain
from hep2jax.ops.targets import current

LANES = 128


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Columns:
    """An image of which several neighbouring columns stand side by side in the channels: (column, channel)."""

    pixels: Float[Array, "b h w2 c2"]
    count: int = dataclasses.field(metadata={"static": True})
    """How many columns are one."""


Image = Float[Array, "b h w c"] | Columns
"""What layers are given: within a `stage` for TPUs, columns side by side."""
AnyImage = TypeVar("AnyImage", Array, Columns)


def stage(layers: Callable[[Image], Image], x: Float[Array, "b h w c"], channels: int) -> Float[Array, "b h2 w2 c2"]:
    """`layers(x)`: convolutions of stride 1 to `channels` each, and a 2x2 max pool at the end.

    On TPU they work on columns side by side where the channels leave lanes empty, and where those of the result do, the
    batch is laid in the lanes.
    """
    target = current()
    if target.platform != "tpu":
        pooled = layers(x)
        assert not isinstance(pooled, Columns)
        return pooled
    pooled = layers(join(x, columns_for(channels, x.shape[2])))
    return batch_in_lanes(split(pooled), target.devices)


def columns_for(channels: int, width: int) -> int:
    """How many columns of `width` fill the lanes with `channels` channels each; 1: leave them as they are."""
    count = LANES // channels
    while count > 1 and width % (2 * count):  # a pool must be able to follow
        count //= 2
    return max(1, count)


def join(x: Float[Array, "b h w c"], count: int) -> Image:
    """`count` neighbouring columns side by side; of 1 the image as it is."""
    batch, height, width, channels = x.shape
    return Columns(x.reshape(batch, height, width // count, count * channels), count) if count > 1 else x


def split(x: Image) -> Float[Array, "b h w c"]:
    """Inverse of `join`."""
    if not isinstance(x, Columns):
        return x
    batch, height, width, channels = x.pixels.shape
    return x.pixels.reshape(batch, height, width * x.count, channels // x.count)


def batch_in_lanes(x: Float[Array, "b h w c"], devices: int) -> Float[Array, "b h w c"]:
    """The same numbers; where the channels leave lanes empty and a device's share of the batch does not, the compiler
    is told to lay the batch in the lanes.

    Left to itself it lays 64 channels in 128 lanes between two stages. By its estimate, on a v5e with 128 images of
    256 x 256, the second convolution of `fcn`, its pool and the two convolutions behind take 88.0 ms laid out like this
    and 94.7 without. What took longer at 32 images (21.1 ms): two rows stacked in the channels 22.3, pairs of pooled
    columns packed for one convolution 28.2, for one convolution of even and one of odd columns 27.1.
    """
    if x.shape[3] >= LANES or x.shape[0] % (LANES * devices):
        return x
    return with_layout_constraint(x, Layout(major_to_minor=(1, 2, 3, 0)))


def conv2d(x: Columns, kernel: Float[Array, "i j c k"], *, stride: int = 1, padding: str = "SAME") -> Columns:
    """SAME convolution of stride 1 with the odd-sided kernel of the image whose columns stand side by side.

    Raises:
        ValueError: another stride or padding.
    """
    if (stride, padding) != (1, "SAME"):
        raise ValueError(f"columns side by side: stride={stride}, padding={padding}: must be 1 and SAME")
    taps = _taps(kernel.shape[1], x.count)
    pixels = x.pixels.astype(kernel.dtype)
    wide = jnp.einsum("ptio,hpck->hticok", taps.astype(kernel.dtype), kernel)
    wide = wide.reshape(kernel.shape[0], taps.shape[1], pixels.shape[-1], -1)
    return Columns(plain.conv2d(pixels, wide), x.count)


def _taps(width: int, columns: int) -> np.ndarray:
    """[tap of the kernel, tap of the wide one, column read, column written]: 1 where they are the same pixel."""
    reach = -(-(width // 2) // columns)
    tap, wide, read, written = np.indices((width, 2 * reach + 1, columns, columns))
    return written + tap - width // 2 == (wide - reach) * columns + read


def max_pool(x: Columns, size: int = 2) -> Columns:
    """2x2 max pool: half as many columns stand side by side in the result.

    Rows first, then slices of the channels. By the TPU compiler's estimate, with the convolutions around it, 19.6 ms;
    with pairs of rows as a maximum of slices 25.8; with an axis for the pairs of columns the pool alone takes 19.3.

    Raises:
        ValueError: another size.
    """
    if size != 2:
        raise ValueError(f"columns side by side: a pool of {size}: must be 2")
    rows = nnx.max_pool(x.pixels, window_shape=(2, 1), strides=(2, 1))
    parts = jnp.split(rows, x.count, axis=-1)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return Columns(jnp.concatenate([jnp.maximum(left, right) for left, right in pairs], axis=-1), x.count // 2)
