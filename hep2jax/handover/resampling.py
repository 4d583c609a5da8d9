"""What hep2jax does to an image with OpenCV and NumPy, written in JAX for exported programs.

Sides of images may be symbolic (see `jax.export.symbolic_shape`). Positions and weights are computed from whole
numbers, because float32 cannot tell positions in large images apart finely enough. Batches of grey levels are float32
[batch, height, width] with whole numbers from 0 to 255.
"""

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jax import core
from jaxtyping import Array, Float, Float32, Int32

Side = Any
"""A number of pixels: an int, or a symbolic dimension."""

_PERCENTILE_PARTS = 10_000  # percentiles are multiples of 0.01, so that their positions are whole numbers of parts
_COEFFICIENT = 2048  # OpenCV interpolates 8 bits with weights of 11 bits


def reduced_side(side: Side, scale: Fraction) -> Side:
    """The side of an image that OpenCV has resized by `scale`: the nearest whole number, of two the even one."""
    twice, whole = 2 * side * scale.numerator, scale.denominator
    return (twice + whole) // (4 * whole) + (twice + 3 * whole - 1) // (4 * whole)


def reduce(image: Float32[Array, "batch _ _"], scale: Fraction) -> Float32[Array, "batch _ _"]:
    """The image shrunk by area averages, rounded to grey levels: `fields.resize_image`.

    A grey level of about 1 in 10,000 pixels is off by one, where an average lies just between two levels. At a scale
    of 1/2 there is no such pixel.
    """
    if scale == 1:
        return image
    height, width = (reduced_side(side, scale) for side in image.shape[1:])
    return area_average(
        image, (height, width), (scale.numerator, scale.numerator), (scale.denominator, scale.denominator)
    )


def area_average(
    image: Float32[Array, "batch _ _"], sides: tuple[Side, Side], numerators: tuple[Any, Any], spans: tuple[Any, Any]
) -> Float32[Array, "batch _ _"]:
    """Averages over areas, rounded: along each axis, each pixel of the result spans `span / numerator` pixels."""
    parts = zip(image.shape[1:], sides, numerators, spans, strict=True)
    (down, tall), (right, wide) = (_area_weights(*part) for part in parts)
    mean = jnp.einsum("Hh,bhw,Ww->bHW", down, image, right, precision="highest")
    rounded = jnp.rint(mean)
    # OpenCV has a formula of its own for whole blocks of 2x2 pixels, which rounds halves up.
    halves = [span == 2 * numerator for span, numerator in zip(spans, numerators, strict=True)]
    whole = (tall[:, None] & wide) & jnp.asarray(halves[0]) & jnp.asarray(halves[1])
    return jnp.where(whole, jnp.floor(mean + 0.5), rounded)


def _area_weights(side: Side, reduced: Side, numerator: Any, span: Any) -> tuple[Array, Array]:
    """The weights [reduced, side] and, for each row, whether its area lies wholly in the image."""
    first, pixel = _count(reduced)[:, None] * span, _count(side)[None] * numerator
    overlap = jnp.minimum(pixel + numerator, first + span) - jnp.maximum(pixel, first)
    area = jnp.minimum(span, jnp.asarray(side) * numerator - first)
    return jnp.maximum(overlap, 0) / area, area[:, 0] == span


def _count(side: Side) -> Int32[Array, " side"]:
    return jnp.arange(side, dtype=jnp.int32)


def stretch(image: Float32[Array, "batch _ _"], side: int) -> Float32[Array, "batch side side"]:
    """The image resized to a square as `cells.preprocess` does with `data.cell_fit=stretch`.

    By area averages if height and width shrink, otherwise linearly.
    """
    height, width = (jnp.asarray(length) for length in image.shape[1:])
    by_area = area_average(image, (side, side), (side, side), (height, width))
    shrinks = (side < height) & (side < width)
    return jnp.where(shrinks, by_area, _stretch_linearly(image, side))


def _stretch_linearly(image: Float32[Array, "batch _ _"], side: int) -> Float32[Array, "batch side side"]:
    """Linear interpolation as OpenCV does it with 8 bits, in whole numbers."""
    pixels = image.astype(jnp.int32)
    (top, bottom, low), (left, right, near) = (_neighbours(length, side) for length in image.shape[1:])
    weight = jnp.rint(near * _COEFFICIENT).astype(jnp.int32)
    across = pixels[:, :, left] * (_COEFFICIENT - weight) + pixels[:, :, right] * weight
    weight = jnp.rint(low * _COEFFICIENT).astype(jnp.int32)[:, None]
    above, below = across[:, top] >> 4, across[:, bottom] >> 4
    blended = (above * (_COEFFICIENT - weight) >> 16) + (below * weight >> 16)
    return ((blended + 2) >> 2).astype(jnp.float32)


def _neighbours(side: Side, enlarged: Side) -> tuple[Array, Array, Array]:
    """For each pixel of the result the two pixels between which its centre lies, and the weight of the second."""
    length, count = jnp.asarray(side), jnp.asarray(enlarged)
    twice = (2 * _count(enlarged) + 1) * length - count  # position times 2 * enlarged
    first = twice // (2 * count)
    share = (twice - first * 2 * count) / (2 * count)
    return jnp.clip(first, 0, length - 1), jnp.clip(first + 1, 0, length - 1), share


def enlarge(maps: Float[Array, "batch _ _ k"], height: Side, width: Side) -> Float[Array, "batch height width k"]:
    """Maps interpolated bilinearly to a larger size, with half-pixel centres: `fields.to_native`."""
    first, second, share = _neighbours(maps.shape[1], height)
    share = share[:, None, None]
    rows = maps[:, first] * (1 - share) + maps[:, second] * share
    first, second, share = _neighbours(maps.shape[2], width)
    share = share[:, None]
    return rows[:, :, first] * (1 - share) + rows[:, :, second] * share


def percentile(image: Float32[Array, "batch _ _"], percent: float) -> Float32[Array, " batch"]:
    """The percentile of the grey levels of each image, as `numpy.percentile`; a multiple of 0.01."""
    values = jnp.sort(image.reshape(image.shape[0], -1), axis=1)
    last = jnp.asarray(values.shape[1]) - 1
    parts = round(percent * _PERCENTILE_PARTS / 100)
    rest = last % _PERCENTILE_PARTS * parts
    index = last // _PERCENTILE_PARTS * parts + rest // _PERCENTILE_PARTS
    share = rest % _PERCENTILE_PARTS / _PERCENTILE_PARTS
    low, high = (jnp.take(values, jnp.minimum(index + step, last), axis=1) for step in (0, 1))
    return low + share * (high - low)


def mirrored(image: Float32[Array, "batch _ _"], least: int) -> Float32[Array, "batch _ _"]:
    """The image, extended at the bottom and on the right with its mirror image to `least` pixels if it is smaller."""
    height, width = image.shape[1:]
    rows = _reflect(_count(core.max_dim(height, least)), jnp.asarray(height))
    columns = _reflect(_count(core.max_dim(width, least)), jnp.asarray(width))
    return image[:, rows][:, :, columns]


def _reflect(position: Array, length: Array) -> Array:
    inside = position % (2 * length)
    return jnp.where(inside < length, inside, 2 * length - 1 - inside)
