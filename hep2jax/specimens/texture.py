"""Texture features of grey images: rotation-invariant co-occurrence of local binary patterns."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

SCALES = ((1, 2), (2, 4), (4, 8))
"""(radius of the binary patterns, distance between the pixels of a pair) in pixels, as in the authors' public code."""
NUM_CODES = 16
"""Number of local binary patterns of four neighbours."""
NUM_LABELS = NUM_CODES * (NUM_CODES + 1) // 2
"""Number of classes of pairs that are equivalent under rotation: 136."""

_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # (y, x) from one pixel of a pair to the other, 45 degrees apart
_AHEAD, _RIGHT, _BEHIND, _LEFT = 4, 2, 1, 8  # bits of a code, relative to the direction of the pair


def ric_lbp(image: np.ndarray, scales: Sequence[tuple[int, int]] = SCALES) -> Float[np.ndarray, " feature"]:
    """Rotation-invariant co-occurrence among adjacent local binary patterns (RIC-LBP).

    Nosaka, Suryanto, Fukui, ACCV 2012 Workshops (LBP 2012); used for HEp-2 by Nosaka and Fukui, Pattern Recognition 47
    (2014). From the paper and the authors' public code: pairs of pixels are formed at a fixed distance in four
    directions, 45 degrees apart. Each pixel has a 4-bit code that tells which of four neighbours, 90 degrees apart, are
    brighter; the bits are ordered relative to the direction of the pair. A pair and its reverse have the same label.
    Diagonal steps are rounded up to integer pixels. Our addition: the histogram of each scale is divided by its sum,
    because fields differ in size.

    Rotating the image by 90 degrees permutes the directions, and only pairs at the image border change the histogram.
    Rotating it by 45 degrees changes the histogram slightly, because the pixels are resampled.

    Args:
        image: [height, width], real numbers; only their order matters.
        scales: (radius, distance) of each histogram.

    Returns:
        float64 [136 * scales]; each block of 136 values sums to 1, or is zero if the image is too small for the scale.

    Raises:
        ValueError: the image is not [height, width].
    """
    if image.ndim != 2:
        raise ValueError(f"expected a grey image [height, width], got {image.shape}")
    return np.concatenate([_histogram(image, radius, distance) for radius, distance in scales])


def _histogram(image: np.ndarray, radius: int, distance: int) -> np.ndarray:
    counts = np.zeros(NUM_CODES**2, np.int64)
    if min(image.shape) > 2 * (radius + distance):
        for direction in _DIRECTIONS:
            codes = _codes(image, radius, direction)
            first, second = _inner(codes, distance, (0, 0)), _inner(codes, distance, _step(direction, distance))
            counts += np.bincount((first * NUM_CODES + second).ravel(), minlength=NUM_CODES**2)
    histogram = np.bincount(pair_labels().ravel(), counts, minlength=NUM_LABELS)
    return histogram / max(histogram.sum(), 1.0)


def _codes(image: np.ndarray, radius: int, direction: tuple[int, int]) -> Int[np.ndarray, "inner_height inner_width"]:
    """The code of every pixel with a complete neighbourhood, relative to a direction."""
    centre = _inner(image, radius, (0, 0))
    (y, x), codes = direction, np.zeros(centre.shape, np.int64)
    for bit, towards in ((_AHEAD, (y, x)), (_RIGHT, (x, -y)), (_BEHIND, (-y, -x)), (_LEFT, (-x, y))):
        codes += bit * (_inner(image, radius, _step(towards, radius)) > centre)
    return codes


def _step(direction: tuple[int, int], length: int) -> tuple[int, int]:
    """A step in integer pixels (y, x); the length of a diagonal step is measured along the diagonal."""
    pixels = length if 0 in direction else math.ceil(length / math.sqrt(2))
    return direction[0] * pixels, direction[1] * pixels


def _inner(image: np.ndarray, margin: int, step: tuple[int, int]) -> np.ndarray:
    """The image without a border of `margin` pixels, shifted by a step of at most `margin` pixels."""
    rows, columns = (
        slice(margin + shift, length - margin + shift) for shift, length in zip(step, image.shape, strict=True)
    )
    return image[rows, columns]


@functools.cache
def pair_labels() -> Int[np.ndarray, "code code"]:
    """The label of each pair (code at its start, code at its end), 0 to 135, in order of first occurrence.

    Reversing a pair swaps its start and end; in each code it swaps ahead with behind and left with right.
    """
    reversed_codes = [_reverse(code) for code in range(NUM_CODES)]
    pairs = [(a, b) for a in range(NUM_CODES) for b in range(NUM_CODES)]
    canonical = [min((a, b), (reversed_codes[b], reversed_codes[a])) for a, b in pairs]
    numbers = {pair: number for number, pair in enumerate(sorted(set(canonical)))}
    return np.array([numbers[pair] for pair in canonical]).reshape(NUM_CODES, NUM_CODES)


def _reverse(code: int) -> int:
    """The code of the same neighbours relative to the opposite direction."""
    swaps = ((_AHEAD, _BEHIND), (_BEHIND, _AHEAD), (_LEFT, _RIGHT), (_RIGHT, _LEFT))
    return sum(new for old, new in swaps if code & old)
