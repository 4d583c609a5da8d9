"""Texture of grey images: co-occurrence of local binary patterns that does not change when the image turns."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

SCALES = ((1, 2), (2, 4), (4, 8))
"""(radius of the patterns, distance of the pairs) in pixels, as in the authors' public code."""
NUM_CODES = 16
"""Local binary patterns of four neighbours."""
NUM_LABELS = NUM_CODES * (NUM_CODES + 1) // 2
"""Classes of pairs that rotations carry into each other: 136."""

_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # (y, x) in eighths of a turn, from one of a pair to the other
_AHEAD, _RIGHT, _BEHIND, _LEFT = 4, 2, 1, 8  # bits of a code, as seen in the pair's direction


def ric_lbp(image: np.ndarray, scales: Sequence[tuple[int, int]] = SCALES) -> Float[np.ndarray, " feature"]:
    """Rotation-invariant co-occurrence among adjacent local binary patterns (RIC-LBP).

    Nosaka, Suryanto, Fukui, ACCV 2012 Workshops (LBP 2012); used for HEp-2 by Nosaka and Fukui, Pattern Recognition 47
    (2014). Sourced (paper and the authors' public code): pairs of pixels at a distance in four directions 45 degrees
    apart; each has the code of four neighbours a quarter turn apart, brighter than it or not, that are counted from the
    pair's direction on; a pair and the same pair seen from its other end have one label. Diagonal steps are rounded up
    to whole pixels. Our reading: the histogram of each scale is divided by its sum, as fields differ in size.

    Turning the image by quarter turns permutes the directions and leaves the histogram as it is but for pairs at the
    frame; by an eighth of a turn nearly so, as the pixels are others.

    Args:
        image: [height, width], real numbers; only their order matters.
        scales: (radius, distance) of each histogram.

    Returns:
        float64 [136 * scales]; each 136 sum to 1, zeros for a scale that the image is too small for.

    Raises:
        ValueError: not [height, width].
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
    """The code of every pixel that has all its neighbours, as seen in a direction."""
    centre = _inner(image, radius, (0, 0))
    (y, x), codes = direction, np.zeros(centre.shape, np.int64)
    for bit, towards in ((_AHEAD, (y, x)), (_RIGHT, (x, -y)), (_BEHIND, (-y, -x)), (_LEFT, (-x, y))):
        codes += bit * (_inner(image, radius, _step(towards, radius)) > centre)
    return codes


def _step(direction: tuple[int, int], length: int) -> tuple[int, int]:
    """Whole pixels (y, x) of a step; `length` of a diagonal one is measured along the diagonal."""
    side = length if 0 in direction else math.ceil(length / math.sqrt(2))
    return direction[0] * side, direction[1] * side


def _inner(image: np.ndarray, margin: int, step: tuple[int, int]) -> np.ndarray:
    """The image without a frame of `margin` pixels, moved by a step no longer than that."""
    rows, columns = (
        slice(margin + move, length - margin + move) for move, length in zip(step, image.shape, strict=True)
    )
    return image[rows, columns]


@functools.cache
def pair_labels() -> Int[np.ndarray, "code code"]:
    """The label of each pair (code at the pair's begin, code at its end), 0 to 135, numbered as they first occur.

    Seen from the other end, begin and end change places, and ahead and behind, left and right in each code.
    """
    turned = [_turned(code) for code in range(NUM_CODES)]
    pairs = [(a, b) for a in range(NUM_CODES) for b in range(NUM_CODES)]
    least = [min((a, b), (turned[b], turned[a])) for a, b in pairs]
    numbers = {pair: number for number, pair in enumerate(sorted(set(least)))}
    return np.array([numbers[pair] for pair in least]).reshape(NUM_CODES, NUM_CODES)


def _turned(code: int) -> int:
    """The same neighbours, seen in the opposite direction."""
    swaps = ((_AHEAD, _BEHIND), (_BEHIND, _AHEAD), (_LEFT, _RIGHT), (_RIGHT, _LEFT))
    return sum(new for old, new in swaps if code & old)
