"""Cropping, mirroring and rotation on the device: applies affine matrices to images inside the compiled step.

A TPU gathers single pixels slowly. There a slab of rows is fetched for each tile of a crop and interpolated by matrix
products with hat functions, whose weights are bfloat16, so that a grey level can be off by up to about one. Other
platforms gather the neighbouring pixels of each pixel of the crop.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, UInt8

from hep2jax.ops.targets import current

_TILE = 128
"""Side of the tiles of a crop on TPU. 32 crops of 256 x 256 on a v5e, by the TPU compiler's estimate: 10.0 ms with
tiles of 64, 9.2 with 128, 10.0 with 256; with square windows instead of slabs over the whole width 67 ms (tiles of
128), because columns are not contiguous in memory. 128 cells of 78 x 78: 0.7 ms if slabs are whole canvases, else
1.8."""

_NEARLY = 16  # a slab that leaves out at most so many rows is not worth slicing: the whole canvas is fetched

Matrices = Float32[Array, "batch 2 3"]


def crops(batch: dict[str, Any], constants: dict[str, Any], *, size: int, stretch: float = 1.0) -> dict[str, Any]:
    """Replace `index` and `warp` in a batch by `image` (float32 grey levels) and, for fields, `labels` (uint8).

    `constants` holds `pictures` [n, height, width] and, for fields, `label_maps`: canvases that contain every pixel
    which the matrices of a run can reach (see `data.canvases`). With `depths` beside the pictures, images have two
    channels, grey levels and depth. A batch that already has an image is returned as it is.
    `size` and `stretch` are as in `bilinear`.
    """
    if "image" in batch:
        return batch
    index, matrices = batch["index"], batch["warp"]
    layers = [constants[name] for name in ("pictures", "depths") if name in constants]
    images = [bilinear(layer, index, matrices, size, stretch=stretch) for layer in layers]
    cut = {"image": jnp.stack(images, axis=-1) if len(images) > 1 else images[0]}
    if "label_maps" in constants:
        cut["labels"] = nearest(constants["label_maps"], index, matrices, size, stretch=stretch)
    return {name: value for name, value in batch.items() if name not in ("index", "warp")} | cut


def bilinear(
    pictures: UInt8[Array, "count height width"],
    index: Int32[Array, " batch"],
    matrices: Matrices,
    size: int,
    *,
    stretch: float = 1.0,
) -> Float32[Array, "batch size size"]:
    """Crops of `pictures[index]` by bilinear interpolation; `geometry.warp_image` gives the same, but rounded.

    Args:
        pictures: canvases that contain every pixel which the matrices reach.
        index: the picture that each crop is cut from.
        matrices: map crop (x, y, 1) to canvas (x, y), with pixel centres at whole numbers.
        size: side of the crops, in pixels.
        stretch: the largest number of canvas pixels that one pixel of the crop spans; it limits the size of the slabs.
    """
    if current().platform == "tpu":
        return _by_products(pictures, index, matrices, size, stretch, _hat).astype(jnp.float32)
    x, y = _places(matrices, size)
    left, top = jnp.floor(x), jnp.floor(y)
    right, low = x - left, y - top
    read = _reader(pictures, index, left.astype(jnp.int32), top.astype(jnp.int32))
    above = read(0, 0) * (1 - right) + read(1, 0) * right
    below = read(0, 1) * (1 - right) + read(1, 1) * right
    return above * (1 - low) + below * low


def nearest(
    label_maps: UInt8[Array, "count height width"],
    index: Int32[Array, " batch"],
    matrices: Matrices,
    size: int,
    *,
    stretch: float = 1.0,
) -> UInt8[Array, "batch size size"]:
    """Crops of class masks, with the label of the nearest pixel; arguments as in `bilinear`."""
    if current().platform == "tpu":
        return _by_products(label_maps, index, matrices, size, stretch, _box).astype(jnp.uint8)
    x, y = (jnp.floor(places + 0.5).astype(jnp.int32) for places in _places(matrices, size))
    return _reader(label_maps, index, x, y)(0, 0).astype(jnp.uint8)


def _places(matrices: Matrices, size: int) -> tuple[Array, Array]:
    """Canvas coordinates x and y of each pixel of the crops, float32 [batch, size, size] each."""
    across = jnp.arange(size, dtype=jnp.float32)
    a, b, c = jnp.moveaxis(matrices, 2, 0)[..., None, None]
    x, y = jnp.moveaxis(a * across + b * across[:, None] + c, 1, 0)
    return x, y


def _reader(pictures: Array, index: Array, x: Array, y: Array) -> Any:
    """`read(dx, dy)`, which returns the pixels at (x + dx, y + dy), float32."""
    picture = index[:, None, None]

    def read(dx: int, dy: int) -> Array:
        return pictures.at[picture, y + dy, x + dx].get(mode="promise_in_bounds").astype(jnp.float32)

    return read


def _by_products(pictures: Array, index: Array, matrices: Matrices, size: int, stretch: float, weigh: Any) -> Array:
    """Crops from slabs: rows by a matrix product, columns by a weighted sum; float32 [batch, size, size]."""
    tile = min(size, _TILE)
    count, tiles = len(index), -(-size // tile)
    height, width = pictures.shape[1:]
    slab = int(np.ceil(tile * 2**0.5 * stretch)) + 3
    slab = slab if slab < height - _NEARLY else height
    places = jnp.stack(_places(matrices, tiles * tile), axis=1)
    places = places.reshape(count, 2, tiles, tile, tiles, tile).transpose(0, 2, 4, 1, 3, 5)
    places = places.reshape(count * tiles**2, 2, tile**2)
    x, y = jnp.moveaxis(places, 1, 0)
    top = jnp.clip(jnp.floor(y.min(-1)).astype(jnp.int32), 0, height - slab)
    slabs = _slabs(pictures, jnp.repeat(index, tiles**2), top, slab)
    rows = jnp.einsum("bph,bhw->bpw", weigh(y - top[:, None], slab), slabs, preferred_element_type=jnp.float32)
    pixels = (rows * weigh(x, width)).sum(-1)
    pixels = pixels.reshape(count, tiles, tiles, tile, tile).transpose(0, 1, 3, 2, 4)
    return pixels.reshape(count, tiles * tile, tiles * tile)[:, :size, :size]


def _slabs(pictures: Array, index: Array, top: Array, height: int) -> Array:
    """`height` rows from `top` on over the full width, bfloat16 [count, height, width], which is exact for 8 bits."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(1, 2), collapsed_slice_dims=(0,), start_index_map=(0, 1))
    sizes, mode = (1, height, pictures.shape[2]), lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(pictures, jnp.stack([index, top], axis=1), numbers, sizes, mode=mode).astype(jnp.bfloat16)


def _hat(places: Float[Array, "tiles pixels"], window: int) -> Float[Array, "tiles pixels window"]:
    """Weights of bilinear interpolation along one axis."""
    return jnp.maximum(1 - jnp.abs(places[..., None] - jnp.arange(window)), 0).astype(jnp.bfloat16)


def _box(places: Float[Array, "tiles pixels"], window: int) -> Float[Array, "tiles pixels window"]:
    """1 at the nearest pixel along one axis, else 0."""
    return (jnp.floor(places[..., None] + 0.5) == jnp.arange(window)).astype(jnp.bfloat16)
