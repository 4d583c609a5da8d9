"""The contrast of a fluorescence image: the logarithm of its intensity over the background around."""

import cv2
import numpy as np
from jaxtyping import Float32, Num


def log_over_background(image: Num[np.ndarray, "height width"], window: float) -> Float32[np.ndarray, "height width"]:
    """The logarithm of (grey level + 1) less that of the background, which may vary over the image.

    The background is a morphological opening of the logarithm, blurred by half its side. It removes everything that
    is narrower than the window and preserves uneven illumination. A gain changes the result little, and a bright cell
    does not hide dim ones.

    Args:
        image: grey levels, not negative.
        window: side of the opening in pixels; wider than a cell, two nuclear diameters are usual.
    """
    logarithm = np.log1p(image.astype(np.float32))
    side = 2 * round(window / 2) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    opened = cv2.morphologyEx(logarithm, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    return logarithm - cv2.GaussianBlur(opened, (0, 0), sigmaX=window / 2, borderType=cv2.BORDER_REPLICATE)
