"""A cell in relation to its own mask: how deep each pixel lies, and the grey levels that its contrast is measured in.

With `data.cell_fit=frame` a picture of a cell has two channels, grey levels and depth. From them `steps.normalise`
makes the three channels of a network: *net* and *mad*, which are the same for a dim and for a bright specimen, and
depth. `fisher` computes its own channels from the same pictures (`hep2jax/fisher/channels.py`).
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

LEAST_SIGNAL = 1.5  # in grey levels: below that, noise would be the contrast
_OUTLINE, _PER_RADIUS = 128, 64


def encode_depth(mask: Bool[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Distance to the outline in units of the cell's radius, as a byte that `decoded_depth` decodes.

    The radius is that of a disc of the cell's area. The distance of a pixel is that of its centre to the nearest centre
    on the other side of the outline, less half a pixel; it is positive inside and cut off at two radii.
    """
    if mask.all() or not mask.any():
        return np.where(mask, _OUTLINE + 1, _OUTLINE - 1).astype(np.uint8)
    radius = np.sqrt(mask.sum() / np.pi)
    steps = np.rint((np.where(mask, distances(mask), distances(~mask)) - 0.5) / radius * _PER_RADIUS)
    # At least one step, so that rounding never moves the outline.
    steps = np.maximum(steps, 1) * np.where(mask, 1, -1)
    return np.clip(_OUTLINE + steps, 0, 255).astype(np.uint8)


def distances(mask: Bool[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """The distance of each pixel of a mask from the nearest pixel outside it, in pixels; not all pixels may be true.

    The square is a whole number. OpenCV is off by some units in the last place, which differ from call to call, so that
    equal masks would give different depths and objects; rounding the square makes the distances exact up to 1,400
    pixels.
    """
    rough = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(rough)))


def decoded_depth(codes: Any) -> Any:
    """The depth that `encode_depth` encoded, also where codes are interpolated; NumPy or JAX, of the codes' dtype."""
    return (codes - _OUTLINE) / _PER_RADIUS


def inside(codes: Any) -> Any:
    """The mask that `encode_depth` encoded; NumPy or JAX."""
    return codes > _OUTLINE


def curves(frame: UInt8[np.ndarray, "height width 2"]) -> Float32[np.ndarray, "2 4"]:
    """Tone curves (offset, gain, exponent, shift) of the channels net and mad of a frame, see `steps.normalise`.

    net: the signal above the background, which is the tenth percentile outside the mask, in units of the cell's mean
    signal. mad: the signal about the cell's median, in units of the span between its tenth and ninetieth percentile.
    """
    grey, mask = frame[..., 0], inside(frame[..., 1])
    background = _percentiles(grey[~mask], (10,))[0]
    signal = max(float(grey[mask].mean()) - background, LEAST_SIGNAL)
    low, median, high = _percentiles(grey[mask], (10, 50, 90))
    return np.array([[background, 1 / signal, 1, 0], [median, 1 / (high - low + 1), 1, 0]], np.float32)


def _percentiles(values: np.ndarray, percents: Sequence[float]) -> list[float]:
    """Percentiles, interpolated linearly; 0 if there is no value."""
    return np.percentile(values, percents).tolist() if len(values) else [0.0] * len(percents)
