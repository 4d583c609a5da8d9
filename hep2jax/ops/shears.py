"""Cutting turned crops from canvases by two shears, for TPUs, which gather single pixels slowly.

A turned image is a sheared one whose lines are shifted: first every row of the canvas is resampled along itself, then
every column of what that gives (Catmull and Smith, SIGGRAPH 1980). Along a line the places of the pixels are equally
far from each other, equally on all lines, and only the first place differs from line to line. So a line is shifted by
whole pixels, which takes one selection for each binary digit of the shift; the pixels below each place and the two
after them are taken by a product with a matrix of zeros and ones, the same for all lines; and three weights, which
depend on the fractions of line and place, make the value.

Grey levels are interpolated along a sheared column, between the two rows beside a place; other platforms interpolate
between the four pixels around it. Where the image is smooth, both are the same. The label of a place is that of a pixel
at most one away from the nearest.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, UInt8

from hep2jax.ops.lanes import LANES

ROWS = 32
"""Canvases are as high and as wide as multiples of this and of `LANES`, the tile of bytes on a TPU: whole tiles are
copied fast."""

_PRODUCTS = {1: "bxl,bnx->bnl", 2: "blx,bnx->bln"}
_SUPPORT = 3  # pixels that weigh in a value: a place lies up to two pixels behind the first of them
_FINE = 8  # binary digits after the point that are kept of a grey level between the passes


def cut(
    canvases: Sequence[UInt8[Array, "count height width"]],
    smooth: Sequence[bool],
    index: Int32[Array, " batch"],
    matrices: Float32[Array, "batch 2 3"],
    size: int,
    stretch: float,
) -> list[Float32[Array, "batch size size"]]:
    """Crops of up to three kinds of canvases, of which at most two are smooth: between the passes they share 32 bits.

    Args:
        canvases: they contain every pixel that the matrices reach and the two next to it.
        smooth: of each kind, whether its pixels are interpolated (within 1/256 of a grey level), or taken as they are.
        index: the canvas that each crop is cut from.
        matrices: as in `warp.cut`; they turn, mirror and zoom, and do not shear.
        size: side of the crops, in pixels.
        stretch: the largest number of canvas pixels that one pixel of the crop spans.
    """
    far = size - 1
    (a, b, c), (d, e, f) = ([matrices[:, row, column] for column in range(3)] for row in range(2))
    # A crop that lies on its side is cut as its transpose: then no line is shifted by more than a pixel to the next.
    lies = jnp.abs(e) < jnp.abs(d)
    a, b, d, e = jnp.where(lies, b, a), jnp.where(lies, a, b), jnp.where(lies, e, d), jnp.where(lies, d, e)
    left, top = (first + jnp.minimum(p * far, 0) + jnp.minimum(q * far, 0) for first, p, q in ((c, a, b), (f, d, e)))
    longest, straight = math.ceil(far * stretch * math.sqrt(2)), math.ceil(far * stretch)
    # One pixel more on each side: a sheared column leans out by up to one, and places are rounded.
    left, top = jnp.floor(left) - 1, jnp.floor(top) - 1
    pixels, left, top = _windows(canvases, index, left, top, longest + _SUPPORT + 2)
    rows = top[:, None] + jnp.arange(pixels.shape[1])
    starts = (b / e)[:, None] * rows + (c - b * f / e - left)[:, None]
    sheared = _resampled(pixels, a - b * d / e, starts, size, longest, axis=2, depths=[8] * len(smooth), smooth=smooth)
    depths = [8 + _FINE if interpolated else 8 for interpolated in smooth]
    packed = _packed([layer * 2.0 ** (depth - 8) for layer, depth in zip(sheared, depths, strict=True)], depths)
    starts = d[:, None] * jnp.arange(size) + (f - top)[:, None]
    layers = _resampled(packed, e, starts, size, straight, axis=1, depths=depths, smooth=smooth)
    return [
        jnp.where(lies[:, None, None], layer.swapaxes(1, 2), layer) / 2.0 ** (depth - 8)
        for layer, depth in zip(layers, depths, strict=True)
    ]


def _windows(canvases: Sequence[Array], index: Array, left: Array, top: Array, span: int) -> tuple[Array, Array, Array]:
    """Whole tiles around squares of `span` pixels: packed int32 [batch, rows, columns], and where they begin."""
    height, width = canvases[0].shape[1:]
    if height % ROWS or width % LANES:
        raise ValueError(f"canvases of {height} x {width}: must be multiples of {ROWS} x {LANES}")
    bands, blocks = (min(side // tile, -(-(span - 1) // tile) + 1) for side, tile in ((height, ROWS), (width, LANES)))
    band = jnp.clip(top.astype(jnp.int32) // ROWS, 0, height // ROWS - bands)
    block = jnp.clip(left.astype(jnp.int32) // LANES, 0, width // LANES - blocks)
    chosen = (index * (height // ROWS) + band)[:, None] + jnp.arange(bands)
    cut_out = [
        canvas.reshape(-1, ROWS, width).at[chosen].get(mode="promise_in_bounds").reshape(len(index), -1, width)
        for canvas in canvases
    ]
    pixels = _packed(cut_out, [8] * len(canvases))
    columns = _blocks(pixels, block[:, None, None], blocks, width // LANES - blocks + 1)
    return columns, block.astype(jnp.float32) * LANES, band.astype(jnp.float32) * ROWS


def _packed(layers: Sequence[Array], depths: Sequence[int]) -> Int32[Array, "batch rows columns"]:
    """Whole numbers of `depths` binary digits, side by side in 32: what moves pixels moves all kinds at once."""
    shifts = [sum(depths[:number]) for number in range(len(depths))]
    parts = [jnp.round(layer).astype(jnp.int32) << shift for layer, shift in zip(layers, shifts, strict=True)]
    return sum(parts[1:], parts[0])


def _blocks(pixels: Array, first: Int32[Array, "batch _ 1"], count: int, choices: int) -> Array:
    """`count` successive blocks of `LANES` columns from block `first` on, which is below `choices`, round about."""
    blocks = [pixels[:, :, at : at + LANES] for at in range(0, pixels.shape[2], LANES)]
    chosen = []
    for number in range(count):
        block = blocks[number % len(blocks)]
        for choice in range(1, choices):
            block = jnp.where(first == choice, blocks[(number + choice) % len(blocks)], block)
        chosen.append(block)
    return jnp.concatenate(chosen, axis=2)


def _resampled(
    pixels: Int32[Array, "batch rows columns"],
    rate: Float[Array, " batch"],
    starts: Float[Array, "batch line"],
    count: int,
    longest: int,
    *,
    axis: int,
    depths: Sequence[int],
    smooth: Sequence[bool],
) -> list[Float32[Array, "batch _ _"]]:
    """The layers of packed pixels at `count` places on each line: `starts` of the line + `rate` * 0, 1, 2 ...

    Lines are rows for an `axis` of 2, columns for 1; no line's places span more than `longest`. Rows go round about:
    their places count modulo their length.
    """
    steps = rate[:, None] * jnp.arange(count)
    lowest = jnp.minimum(steps[:, -1:], 0)
    shift, of_line = _split(starts + lowest)
    whole, of_place = _split(steps - lowest)
    length = longest + _SUPPORT
    shifted = _shifted(pixels, jnp.expand_dims(shift, axis), length, axis)
    place = jnp.expand_dims(of_line, axis) + jnp.expand_dims(of_place, 3 - axis)
    picks = [(whole[:, :, None] + step == jnp.arange(length)).astype(jnp.bfloat16) for step in range(_SUPPORT)]
    layers, first = [], 0
    for depth, interpolated in zip(depths, smooth, strict=True):
        taken = [_taken(shifted >> first, depth, pick, _PRODUCTS[axis]) for pick in picks]
        weights = [_hat(place - step) if interpolated else _box(place - step) for step in range(_SUPPORT)]
        layers.append(sum(value * weight for value, weight in zip(taken, weights, strict=True)))
        first += depth
    return layers


def _split(places: Array) -> tuple[Int32[Array, "..."], Float32[Array, "..."]]:
    """Whole numbers and what is left, in [0, 1)."""
    whole = jnp.floor(places)
    return whole.astype(jnp.int32), places - whole


def _shifted(pixels: Array, shift: Int32[Array, "batch _ _"], length: int, axis: int) -> Array:
    """`length` pixels of each line from its `shift` on."""
    if axis == 2:
        circle = pixels.shape[2] // LANES
        shift = jnp.mod(shift, circle * LANES)
        pixels = _blocks(pixels, shift // LANES, -(-(length + LANES - 1) // LANES), circle)
        digits = (LANES - 1).bit_length()
    else:
        digits = (pixels.shape[1] - 1).bit_length()
        pixels = jnp.pad(pixels, ((0, 0), (0, length + 2**digits - 1 - pixels.shape[1]), (0, 0)))
    for digit in reversed(range(digits)):
        step, kept = 2**digit, length + 2**digit - 1
        near, far = (lax.slice_in_dim(pixels, start, start + kept, axis=axis) for start in (0, step))
        pixels = jnp.where((shift >> digit) & 1 == 1, far, near)
    return pixels


def _taken(pixels: Array, depth: int, pick: Array, product: str) -> Float32[Array, "batch _ _"]:
    """The lowest `depth` digits of the picked pixels, byte by byte, because bfloat16 holds eight digits exactly."""
    parts = [
        jnp.einsum(product, ((pixels >> first) & 255).astype(jnp.bfloat16), pick, preferred_element_type=jnp.float32)
        * 2.0**first
        for first in range(0, depth, 8)
    ]
    return sum(parts[1:], parts[0])


def _hat(distance: Array) -> Array:
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _box(distance: Array) -> Array:
    return ((distance >= -0.5) & (distance < 0.5)).astype(jnp.float32)
