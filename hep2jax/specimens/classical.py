"""Segmentation by Otsu's threshold and a watershed: the classical baseline for the networks.

Every length is a fixed fraction of the nuclear diameter. The fractions were chosen before any measurement and are not
fitted to any image.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from hep2jax.data.sets.contrast import log_over_background
from hep2jax.metrics import connected_objects

VARIANTS = ("otsu_watershed", "otsu_log_watershed")
MIVIA_NUCLEAR_DIAMETER = 77.0
"""Mean equivalent diameter, in pixels, of the nuclei in MIVIA HEp-2 v1.0 (40x objective, ICPR 2012)."""
SMOOTHING_SIGMA = 0.026
"""In nuclear diameters: 2 px at 77 px, above the correlation length of the noise and below the size of a nucleolus."""
BACKGROUND_WIDTH = 2.0
"""Side of the morphological opening, in nuclear diameters. It removes cells and preserves uneven illumination."""
MIN_AREA = 0.1
"""Smallest area of a cell, in areas of a nominal nucleus: smaller regions are specks."""
MAX_HOLE_AREA = 1.0
"""Largest area of a hole, in areas of a nominal nucleus: larger holes are gaps between cells."""
SEED_SIGMA = 0.05
"""Smoothing of the distance map, in nuclear diameters. It prevents two seeds in one nucleus with a rough edge."""
SEED_DISTANCE = 0.4
"""Smallest distance between the centres of two touching nuclei, in nuclear diameters."""
CUT_CONTACT = 1 / 3
"""A cell is cut by the image border if more than this length of it lies on the border, in nuclear diameters."""

Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


def segment(
    image: Grey,
    *,
    variant: str = "otsu_watershed",
    nuclear_diameter: float = MIVIA_NUCLEAR_DIAMETER,
    smoothing_sigma: float | None = None,
    min_pixels: int | None = None,
) -> Int[np.ndarray, "height width"]:
    """Segment the cells of one field without training.

    The steps are Gaussian smoothing, Otsu's global threshold (IEEE SMC 9, 1979), filling of holes, removal of specks,
    and separation of touching nuclei by a watershed on the distance transform. `otsu_watershed` thresholds grey
    values. `otsu_log_watershed` thresholds the logarithm of the ratio of intensity to background, where the
    background is a morphological opening wider than a cell: this removes uneven illumination, and a bright cell no
    longer raises the threshold above the dim cells.

    Args:
        image: uint8 [height, width], the channel that contains the stain.
        variant: one of `VARIANTS`.
        nuclear_diameter: typical diameter of a nucleus in pixels of `image`.
        smoothing_sigma: standard deviation of the smoothing in pixels; None: `SMOOTHING_SIGMA` nuclear diameters.
        min_pixels: area of the smallest region to keep; None: `MIN_AREA` times the area of a nominal nucleus.

    Returns:
        int32 [height, width], 0 = background, objects 1, 2, ...; all 0 for an image with a single grey value.

    Raises:
        ValueError: the variant is unknown, the image is not uint8 [height, width], or the diameter is not positive.
    """
    _check(image, variant, nuclear_diameter)
    if np.ptp(image) == 0:
        return np.zeros(image.shape, np.int32)
    sigma = SMOOTHING_SIGMA * nuclear_diameter if smoothing_sigma is None else smoothing_sigma
    nucleus_area = math.pi / 4 * nuclear_diameter**2
    contrast = _blur(image.astype(np.float32), sigma)
    if variant == "otsu_log_watershed":
        contrast = log_over_background(contrast, BACKGROUND_WIDTH * nuclear_diameter)
    # Otsu's 256 bins need float64: in a blurred flat image the differences are too small for bin edges in float32.
    mask = contrast > threshold_otsu(contrast.astype(np.float64))
    mask = _fill_holes(mask, MAX_HOLE_AREA * nucleus_area)
    mask = connected_objects(mask, round(MIN_AREA * nucleus_area) if min_pixels is None else min_pixels) > 0
    return split_touching(mask, nuclear_diameter)


def split_touching(mask: Mask, nuclear_diameter: float) -> Int[np.ndarray, "height width"]:
    """Separate a foreground mask into nuclei by a watershed on its smoothed distance transform.

    Args:
        mask: bool [height, width].
        nuclear_diameter: in pixels; maxima closer than `SEED_DISTANCE` times this stay one object.

    Returns:
        int32 [height, width]; positive exactly on the mask.
    """
    regions = connected_objects(mask)
    # Add a border of background: OpenCV does not treat the image edge as background, and a mask that is true
    # everywhere would have no distances.
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    distance = _blur(distance, SEED_SIGMA * nuclear_diameter)
    separation = max(1, round(SEED_DISTANCE * nuclear_diameter))
    # Maxima are searched in each region separately, so that every region has a seed and no foreground is lost.
    peaks = peak_local_max(distance, min_distance=separation, labels=regions, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask, connectivity=2).astype(np.int32)


def drop_cut_cells(cells: Int[np.ndarray, "height width"], nuclear_diameter: float) -> Int[np.ndarray, "height width"]:
    """Remove the objects that the image border cuts; the other labels do not change.

    A cell is cut if more than `CUT_CONTACT` nuclear diameters of it lie on the border. A complete cell near the border
    may touch it in a few pixels, because its outline is not exact.
    """
    border = np.concatenate([cells[0], cells[-1], cells[1:-1, 0], cells[1:-1, -1]])
    contact = np.bincount(border, minlength=cells.max() + 1)
    contact[0] = 0
    return np.where(contact[cells] > CUT_CONTACT * nuclear_diameter, 0, cells)


def _fill_holes(mask: Mask, max_pixels: float) -> Mask:
    # The added border connects all background that reaches the image edge; that background is not a hole.
    outside = cv2.copyMakeBorder((~mask).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1) > 0
    background = connected_objects(outside, math.floor(max_pixels) + 1, connectivity=4) > 0
    regions = connected_objects(outside, connectivity=4)
    background |= regions == regions[0, 0]
    return ~background[1:-1, 1:-1]


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma <= 0:
        return image
    return cv2.GaussianBlur(image, (0, 0), sigmaX=sigma, borderType=cv2.BORDER_REPLICATE)


def _check(image: np.ndarray, variant: str, nuclear_diameter: float) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant '{variant}': must be one of {', '.join(VARIANTS)}")
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [height, width], got {image.dtype} {image.shape}")
    if not nuclear_diameter > 0:
        raise ValueError(f"nuclear_diameter={nuclear_diameter}: must be positive")
