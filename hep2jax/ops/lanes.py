"""Several columns of an image as the channels of one pixel, for TPUs.

A TPU lays the channels of an activation out in 128 lanes and multiplies 128 x 128 matrices; convolutions of 64 channels
fill a quarter of them. If the columns of an image are placed side by side in the channels, [b, h, w, c] as
[b, h, w / n, n c], the same convolution fills them, with a kernel that is zero where a column is out of its reach. This
is n times the arithmetic, in a shape that costs half or less. By the TPU compiler's estimate (v5e, two 3x3 convolutions
of 64 channels with BatchNorm, 32 images of 256 x 256, forward and backward, without the copies at their borders) it
takes 13.2 ms instead of 25.6 ms. The rearrangement costs nothing only if all layers of a stage work on it: so the
columns are joined at the beginning of a stage and split after its pool.
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
    """An image with several neighbouring columns side by side in the channels, ordered by (column, channel)."""

    pixels: Float[Array, "b h w2 c2"]
    count: int = dataclasses.field(metadata={"static": True})
    """The number of columns that are joined into one."""


Image = Float[Array, "_ _ _ _"] | Columns
"""The input of layers: an array or, within a `stage` on TPU, columns side by side."""
AnyImage = TypeVar("AnyImage", Array, Columns)


def stage(layers: Callable[[Image], Image], x: Float[Array, "b h w c"], channels: int) -> Float[Array, "b h2 w2 c2"]:
    """`layers(x)`, where the layers are convolutions of stride 1 to `channels` each and a 2x2 max pool at the end.

    On TPU they work on columns side by side if the channels leave lanes empty. If the channels of the result leave
    lanes empty, the batch is laid out in the lanes (see `batch_in_lanes`).
    """
    target = current()
    if target.platform != "tpu":
        pooled = layers(x)
        assert not isinstance(pooled, Columns)
        return pooled
    pooled = layers(join(x, columns_for(channels, x.shape[2])))
    return batch_in_lanes(split(pooled), target.devices)


def columns_for(channels: int, width: int) -> int:
    """How many of `width` columns with `channels` channels to join so that they fill the lanes; 1 means none."""
    count = LANES // channels
    while count > 1 and width % (2 * count):  # the pool at the end of the stage must divide the joined columns
        count //= 2
    return max(1, count)


def join(x: Float[Array, "b h w c"], count: int) -> Image:
    """The image with `count` neighbouring columns side by side; with a count of 1 the image as it is."""
    batch, height, width, channels = x.shape
    return Columns(x.reshape(batch, height, width // count, count * channels), count) if count > 1 else x


def split(x: Image) -> Float[Array, "b h w c"]:
    """Inverse of `join`."""
    if not isinstance(x, Columns):
        return x
    batch, height, width, channels = x.pixels.shape
    return x.pixels.reshape(batch, height, width * x.count, channels // x.count)


def batch_in_lanes(x: Float[Array, "b h w c"], devices: int) -> Float[Array, "b h w c"]:
    """The same numbers, with the batch laid out in the lanes if it fills them on each device and the channels do not.

    By default the compiler lays 64 channels out in 128 lanes between two stages. By its estimate, on a v5e with 128
    images of 256 x 256, the second convolution of `fcn`, its pool and the two convolutions after it take 88.0 ms with
    this layout and 94.7 ms without. Slower alternatives at 32 images (21.1 ms): two rows stacked in the channels 22.3,
    pairs of pooled columns packed for one convolution 28.2, for one convolution of even and one of odd columns 27.1.
    """
    if x.shape[3] >= LANES or x.shape[0] % (LANES * devices):
        return x
    return with_layout_constraint(x, Layout(major_to_minor=(1, 2, 3, 0)))


def conv2d(x: Columns, kernel: Float[Array, "i j c k"], *, stride: int = 1, padding: str = "SAME") -> Columns:
    """SAME convolution of stride 1 of an image with its columns side by side; the sides of the kernel are odd.

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
    """[tap of the kernel, tap of the wide kernel, column read, column written]: true where both taps see one pixel."""
    reach = -(-(width // 2) // columns)
    tap, wide, read, written = np.indices((width, 2 * reach + 1, columns, columns))
    return written + tap - width // 2 == (wide - reach) * columns + read


def max_pool(x: Columns, size: int = 2) -> Columns:
    """2x2 max pool; the result has half as many columns side by side.

    Rows are pooled first, then slices of the channels. By the TPU compiler's estimate it takes 19.6 ms together with
    the convolutions around it; with pairs of rows as a maximum of slices 25.8 ms; with an axis for the pairs of columns
    the pool alone takes 19.3 ms.

    Raises:
        ValueError: another size.
    """
    if size != 2:
        raise ValueError(f"columns side by side: a pool of {size}: must be 2")
    rows = nnx.max_pool(x.pixels, window_shape=(2, 1), strides=(2, 1))
    parts = jnp.split(rows, x.count, axis=-1)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return Columns(jnp.concatenate([jnp.maximum(left, right) for left, right in pairs], axis=-1), x.count // 2)
