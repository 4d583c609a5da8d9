"""The channels of a cell: its signal on two scales of contrast, and the depth of every pixel in the cell."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

_FAR = 1e6  # a squared distance larger than any within an image


def quantiles(
    image: Float32[Array, "height width"], where: Bool[Array, "height width"], shares: Sequence[float]
) -> Float32[Array, " share"]:
    """Quantiles of the chosen pixels, interpolated linearly between neighbours in order; 0 if no pixel is chosen."""
    ordered = jnp.sort(jnp.where(where, image, jnp.inf).ravel())
    last = jnp.maximum(where.sum() - 1, 0)
    position = jnp.array(shares) * last
    below = jnp.floor(position).astype(jnp.int32)
    above = jnp.minimum(below + 1, last)
    values = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    return jnp.where(where.any(), values, 0.0)


def background(image: Float32[Array, "height width"], mask: Bool[Array, "height width"]) -> Float32[Array, ""]:
    """The grey level of the background: the tenth percentile outside the mask."""
    return quantiles(image, ~mask, (0.1,))[0]


def signal(image: Float32[Array, "height width"], mask: Bool[Array, "height width"]) -> Float32[Array, ""]:
    """The mean grey level of the cell above the background, at least 1.5: below that, noise would be the contrast."""
    inside = (image * mask).sum() / jnp.maximum(mask.sum(), 1)
    return jnp.maximum(inside - background(image, mask), 1.5)


def net(image: Float32[Array, "height width"], mask: Bool[Array, "height width"]) -> Float32[Array, "height width"]:
    """asinh of the signal above the background, in units of the cell's mean: bright dots do not outweigh the rest."""
    return jnp.arcsinh((image - background(image, mask)) / signal(image, mask))


def mad(image: Float32[Array, "height width"], mask: Bool[Array, "height width"]) -> Float32[Array, "height width"]:
    """The signal about the cell's median, in units of the span between its tenth and ninetieth percentile."""
    low, median, high = quantiles(image, mask, (0.1, 0.5, 0.9))
    return (image - median) / (high - low + 1.0)


def depth(mask: Bool[Array, "height width"]) -> Float32[Array, "height width"]:
    """Distance to the outline in units of the cell's radius, positive inside, negative outside; zeros without a cell.

    The radius is that of a disc of the cell's area. The distance of a pixel is that of its centre to the nearest
    centre on the other side, less half a pixel.
    """
    radius = jnp.sqrt(jnp.maximum(mask.sum(), 1) / jnp.pi)
    signed = jnp.where(mask, _distance(~mask) - 0.5, 0.5 - _distance(mask)) / radius
    return jnp.where(mask.any() & ~mask.all(), signed, 0.0)


def _distance(target: Bool[Array, "height width"]) -> Float32[Array, "height width"]:
    """Exact Euclidean distance of every pixel to the nearest pixel of the target, one axis after the other."""
    squared = jnp.where(target, 0.0, _FAR)
    for _ in range(2):
        steps = jnp.arange(squared.shape[0], dtype=jnp.float32)
        gaps = (steps[:, None] - steps[None, :]) ** 2
        squared = jax.lax.map(lambda row, gaps=gaps, lines=squared: (row[:, None] + lines).min(axis=0), gaps).T
    return jnp.sqrt(squared)
