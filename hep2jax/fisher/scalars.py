"""Numbers that describe a whole cell: grey levels, radial profile, grain sizes, spots, connected parts, shape."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from hep2jax.fisher import channels
from hep2jax.fisher.descriptors import blur_matrix

Image = Float32[Array, "side side"]
Region = Bool[Array, "side side"]

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
RINGS = (-0.6, -0.4, -0.25, -0.1, 0.0, 0.12, 0.26, 0.42, 0.6, 0.78, np.inf)
"""Borders of the rings of the radial profile, as depths in radii."""
OUTSIDE = (-0.5, 0.0)
"""Depths of the ring outside the cell that is described besides its inside."""
GRAINS = (3, 5, 7, 9, 11, 13, 15, 17)
"""Sides of the squares of openings and closings, in pixels."""
SPOT_BLURS, SPOT_RATIO, SPOT_LEVELS = (1.0, 1.4, 2.0, 2.8, 4.0), 1.6, (0.05, 0.12, 0.3)
LEVELS = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.2)
"""Levels above which connected parts are counted, in units of the cell's mean above the background."""


def scalars(image: Image, mask: Region, depth: Image) -> Float32[Array, " scalar"]:
    """The numbers of one cell; turning or mirroring it does not change them.

    Args:
        image: grey levels of the frame, of any range.
        mask: true on the cell.
        depth: as `channels.depth` gives it.
    """
    background, signal = channels.background(image, mask), channels.signal(image, mask)
    relative = (image - background) / signal
    outside = (depth > OUTSIDE[0]) & (depth <= OUTSIDE[1])
    parts = [
        _distribution(image, mask, background, signal),
        _profile(relative, depth),
        _grains(relative, (mask, outside)),
        _spots(relative, (mask, outside)),
        _connected(relative, mask),
        _exposure(image, mask, background, signal),
    ]
    return jnp.concatenate(parts)


def shape(mask: Region) -> Float32[Array, "3"]:
    """Logarithm of the area, logarithm of the ratio of the main axes, and share of the bounding box that is cell."""
    area = jnp.maximum(mask.sum(), 1)
    rows, columns = jnp.mgrid[: mask.shape[0], : mask.shape[1]]
    offsets = jnp.stack([rows - (rows * mask).sum() / area, columns - (columns * mask).sum() / area])
    moments = jnp.einsum("iyx,jyx,yx->ij", offsets, offsets, mask.astype(jnp.float32)) / area
    half, gap = (moments[0, 0] + moments[1, 1]) / 2, (moments[0, 0] - moments[1, 1]) / 2
    root = jnp.sqrt(gap**2 + moments[0, 1] ** 2)
    box = jnp.maximum(mask.any(axis=0).sum() * mask.any(axis=1).sum(), 1)
    return jnp.stack([jnp.log(area), jnp.log((half + root + 1) / (half - root + 1)), area / box]).astype(jnp.float32)


def _mean(image: Image, region: Region) -> Float32[Array, ""]:
    return (image * region).sum() / jnp.maximum(region.sum(), 1)


def _deviation(image: Image, region: Region) -> Float32[Array, ""]:
    return jnp.sqrt(_mean((image - _mean(image, region)) ** 2, region) + 1e-8)


def _distribution(image: Image, mask: Region, background: Array, signal: Array) -> Float32[Array, " scalar"]:
    """Quantiles and standard deviation on two scales, those of `channels.net` and `channels.mad`; skewness, excess."""
    levels = channels.quantiles(image, mask, QUANTILES)
    low, median, high = (levels[QUANTILES.index(share)] for share in (0.1, 0.5, 0.9))
    deviation, span = _deviation(image, mask), high - low + 1.0
    standard = (image - _mean(image, mask)) / deviation
    further = [deviation / signal, deviation / span, _mean(standard**3, mask), jnp.log(_mean(standard**4, mask) + 1e-3)]
    return jnp.concatenate([(levels - background) / signal, (levels - median) / span, jnp.stack(further)])


def _profile(image: Image, depth: Image) -> Float32[Array, " scalar"]:
    """Mean and standard deviation of each ring."""
    rings = [(depth > low) & (depth <= high) for low, high in zip(RINGS[:-1], RINGS[1:], strict=True)]
    return jnp.stack([measure(image, ring) for measure in (_mean, _deviation) for ring in rings])


def _grains(image: Image, regions: Sequence[Region]) -> Float32[Array, " scalar"]:
    """What openings and closings by larger and larger squares take away, in each region."""
    changes = []
    for side in GRAINS:
        opened = _extreme(_extreme(image, side, jnp.minimum), side, jnp.maximum)
        closed = _extreme(_extreme(image, side, jnp.maximum), side, jnp.minimum)
        changes += [image - opened, closed - image]
    return jnp.stack([_mean(change, region) for region in regions for change in changes])


def _extreme(image: Image, side: int, choose: Callable) -> Image:
    """The least or greatest value in the square about each pixel, as far as it lies in the image.

    Windows are doubled until they are wide enough: XLA takes ten times as long for `reduce_window` on CPUs.
    """
    start = jnp.inf if choose is jnp.minimum else -jnp.inf
    for _ in range(2):
        lines, width = jnp.pad(image, ((side // 2, side // 2), (0, 0)), constant_values=start), 1
        while width < side:
            step = min(width, side - width)
            lines, width = choose(lines[:-step], lines[step:]), width + step
        image = lines.T
    return image


def _spots(image: Image, regions: Sequence[Region]) -> Float32[Array, " scalar"]:
    """Bright spots and dark holes of five sizes: how many stand out by a level, and how strong the band is."""
    inside, values = regions[0], []
    for sigma in SPOT_BLURS:
        fine, coarse = (
            jnp.asarray(blur_matrix(image.shape[0], width), jnp.float32) for width in (sigma, sigma * SPOT_RATIO)
        )
        band = fine @ image @ fine.T - coarse @ image @ coarse.T
        for sign in (1, -1):
            peaks = (sign * band >= _extreme(sign * band, 3, jnp.maximum)) & inside
            values += [jnp.log1p((peaks & (sign * band > level)).sum()) for level in SPOT_LEVELS]
        values += [jnp.log(_deviation(band, region) + 1e-3) for region in regions]
    return jnp.stack(values)


def _connected(image: Image, mask: Region) -> Float32[Array, " scalar"]:
    """At each level the share of the cell above it, and the number of its parts less that of their holes.

    The latter is the Euler number, counted from blocks of 2 x 2 pixels (Gray 1971), for parts joined at corners too.
    """
    smooth = jnp.asarray(blur_matrix(image.shape[0], 0.7), jnp.float32)
    smoothed, values = smooth @ image @ smooth.T, []
    for level in LEVELS:
        above = (smoothed > level) & mask
        values += [_mean(above.astype(jnp.float32), mask), jnp.arcsinh(euler_number(above))]
    return jnp.stack(values)


def euler_number(region: Region) -> Float32[Array, ""]:
    """The number of connected parts (joined by sides or corners) less the number of holes in them."""
    pixels = jnp.pad(region, 1).astype(jnp.int32)
    a, b, c, d = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]
    count = a + b + c + d
    diagonal = (count == 2) & (a == d)
    return ((count == 1).sum() - (count == 3).sum() - 2 * diagonal.sum()) / 4.0


def _exposure(image: Image, mask: Region, background: Array, signal: Array) -> Float32[Array, " scalar"]:
    """Logarithms of signal, signal by noise, background and area."""
    curvature = image[1:-1, 1:-1] * 4 - image[2:, 1:-1] - image[:-2, 1:-1] - image[1:-1, 2:] - image[1:-1, :-2]
    noise = channels.quantiles(jnp.abs(curvature), ~mask[1:-1, 1:-1], (0.5,))[0]
    return jnp.stack([jnp.log(signal), jnp.log(signal / (noise + 0.5)), jnp.log1p(background), jnp.log1p(mask.sum())])
