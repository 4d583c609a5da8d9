"""Cropping, mirroring and rotation on the device: applies affine matrices to images inside the compiled step.

A TPU gathers single pixels slowly and cuts crops by shears (see `shears`); other platforms gather the neighbouring
pixels of each pixel of the crop.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt8

from hep2jax.ops import shears
from hep2jax.ops.targets import current

Matrices = Float32[Array, "batch 2 3"]
Canvases = UInt8[Array, "count height width"]


def crops(batch: dict[str, Any], constants: dict[str, Any], *, size: int, stretch: float = 1.0) -> dict[str, Any]:
    """Replace `index` and `warp` in a batch by `image` (float32 grey levels) and, for fields, `labels` (uint8).

    `constants` holds `pictures` [n, height, width] and, for fields, `label_maps`: canvases that contain every pixel
    which the matrices of a run can reach (see `data.canvases`). With `depths` beside the pictures, images have two
    channels, grey levels and depth. A batch that already has an image is returned as it is.
    `size` and `stretch` are as in `cut`.
    """
    if "image" in batch:
        return batch
    smooth = [constants[name] for name in ("pictures", "depths") if name in constants]
    labelled = [constants[name] for name in ("label_maps",) if name in constants]
    images, labels = cut(smooth, labelled, batch["index"], batch["warp"], size, stretch=stretch)
    found = {"image": jnp.stack(images, axis=-1) if len(images) > 1 else images[0]}
    if labels:
        found["labels"] = labels[0]
    return {name: value for name, value in batch.items() if name not in ("index", "warp")} | found


def cut(
    smooth: Sequence[Canvases],
    labelled: Sequence[Canvases],
    index: Int32[Array, " batch"],
    matrices: Matrices,
    size: int,
    *,
    stretch: float = 1.0,
) -> tuple[list[Float32[Array, "batch size size"]], list[UInt8[Array, "batch size size"]]]:
    """Crops of canvases by bilinear interpolation, and of label maps, with the label of the nearest pixel.

    `geometry.warp_image` and `geometry.warp_classes` give the same, except that they round.

    Args:
        smooth: at most two kinds of canvases, which contain every pixel that the matrices reach and the two next to it.
        labelled: at most one kind of label maps on the same canvases.
        index: the canvas that each crop is cut from.
        matrices: map crop (x, y, 1) to canvas (x, y), with pixel centres at whole numbers; they turn, mirror and zoom.
        size: side of the crops, in pixels.
        stretch: the largest number of canvas pixels that one pixel of the crop spans; it limits what a TPU fetches.
    """
    if current().platform == "tpu":
        interpolated = [True] * len(smooth) + [False] * len(labelled)
        found = shears.cut([*smooth, *labelled], interpolated, index, matrices, size, stretch)
        images, labels = found[: len(smooth)], found[len(smooth) :]
    else:
        x, y = _places(matrices, size)
        images = [_bilinear(canvases, index, x, y) for canvases in smooth]
        labels = [_reader(maps, index, *map(_rounded, (x, y)))(0, 0) for maps in labelled]
    return images, [layer.astype(jnp.uint8) for layer in labels]


def _bilinear(pictures: Array, index: Array, x: Array, y: Array) -> Float32[Array, "batch size size"]:
    left, top = jnp.floor(x), jnp.floor(y)
    right, low = x - left, y - top
    read = _reader(pictures, index, left.astype(jnp.int32), top.astype(jnp.int32))
    above = read(0, 0) * (1 - right) + read(1, 0) * right
    below = read(0, 1) * (1 - right) + read(1, 1) * right
    return above * (1 - low) + below * low


def _rounded(places: Array) -> Array:
    return jnp.floor(places + 0.5).astype(jnp.int32)


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
