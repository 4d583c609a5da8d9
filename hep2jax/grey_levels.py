"""Statistics of the grey levels of images, from the counts of the 256 levels."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

_EXACT = 2**24  # OpenCV returns counts as float32


def percentiles(image: UInt8[np.ndarray, "height width"], ranks: Sequence[float]) -> Float64[np.ndarray, " ranks"]:
    """What `numpy.percentile(image, ranks)` returns, bit for bit, in a tenth of the time.

    Args:
        image: of any size except an empty one.
        ranks: in percent, 0 to 100.
    """
    counted = np.cumsum(_counts(image))
    position = np.true_divide(ranks, 100) * (image.size - 1)
    before = np.floor(position)
    low, high = (
        np.searchsorted(counted, np.minimum(index, image.size - 1), side="right").astype(np.float64)
        for index in (before, before + 1)
    )
    share = position - before
    # NumPy interpolates from the nearer side.
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


def _counts(image: np.ndarray) -> np.ndarray:
    """How many pixels have each of the 256 levels."""
    rows = max(1, _EXACT // image.shape[1])
    parts = (image[first : first + rows] for first in range(0, len(image), rows))
    return np.stack([cv2.calcHist([part], [0], None, [256], [0, 256]).ravel() for part in parts]).sum(0, np.float64)
