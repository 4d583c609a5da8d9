"""Otsu + watershed: the classical segmentation that the networks are measured against.

Every length is a fixed fraction of the nuclear diameter, chosen before any measurement and fitted to no
image.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from hep2jax.metrics import connected_objects

VARIANTS = ("otsu_watershed", "otsu_log_watershed")
MIVIA_NUCLEAR_DIAMETER = 77.0
"""Pixels; mean equivalent diameter of the nuclei in MIVIA HEp-2 v1.0 (40x objective, ICPR 2012)."""
SMOOTHING_SIGMA = 0.026
"""Nuclear diameters: 2 px at 77 px, above the noise's correlation and below the size of a nucleolus."""
BACKGROUND_WIDTH = 2.0
"""Nuclear diameters: side of the opening that removes cells but keeps the illumination field."""
MIN_AREA = 0.1
"""Nominal nuclei: smaller regions are specks."""
MAX_HOLE_AREA = 1.0
"""Nominal nuclei: larger holes are gaps between cells, not the inside of one."""
SEED_SIGMA = 0.05
"""Nuclear diameters: smoothing of the distance map, so that a rough edge does not seed twice."""
SEED_DISTANCE = 0.4
"""Nuclear diameters: closest centres of two touching nuclei."""
CUT_CONTACT = 1 / 3
"""Nuclear diameters on the frame above which a cell counts as cut by it."""

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
    """Find the cells of one field without learning.

    Gaussian smoothing, Otsu's global threshold (IEEE SMC 9, 1979), holes filled, specks removed, touching
    nuclei split by a watershed on the distance transform. `otsu_watershed` thresholds grey values.
    `otsu_log_watershed` thresholds the logarithm of the intensity over its background (a morphological
    opening wider than a cell): illumination is divided out and a bright cell no longer lifts the threshold
    above the dim ones.

    Args:
        image: uint8 [height, width], the channel that carries the stain.
        variant: one of `VARIANTS`.
        nuclear_diameter: typical diameter of a nucleus in pixels of `image`.
        smoothing_sigma: in pixels; None: `SMOOTHING_SIGMA` nuclear diameters.
        min_pixels: area of the smallest region kept; None: `MIN_AREA` of a nominal nucleus.

    Returns:
        int32 [height, width], 0 = background, objects 1, 2, ...; all 0 for an image of one grey value.

    Raises:
        ValueError: unknown variant, an image that is not uint8 [height, width], a diameter that is not
            positive.
    """
    _check(image, variant, nuclear_diameter)
    if np.ptp(image) == 0:
        return np.zeros(image.shape, np.int32)
    sigma = SMOOTHING_SIGMA * nuclear_diameter if smoothing_sigma is None else smoothing_sigma
    nucleus_area = math.pi / 4 * nuclear_diameter**2
    contrast = _blur(image.astype(np.float32), sigma)
    if variant == "otsu_log_watershed":
        contrast = _log_over_background(contrast, nuclear_diameter)
    # float64: blurring leaves a flat image with differences too small for 256 bins between float32 numbers.
    mask = contrast > threshold_otsu(contrast.astype(np.float64))
    mask = _fill_holes(mask, MAX_HOLE_AREA * nucleus_area)
    mask = connected_objects(mask, round(MIN_AREA * nucleus_area) if min_pixels is None else min_pixels) > 0
    return split_touching(mask, nuclear_diameter)


def split_touching(mask: Mask, nuclear_diameter: float) -> Int[np.ndarray, "height width"]:
    """Divide a foreground mask into nuclei by a watershed on its smoothed distance transform.

    Args:
        mask: bool [height, width].
        nuclear_diameter: in pixels; centres closer than `SEED_DISTANCE` of it stay one object.

    Returns:
        int32 [height, width]; positive exactly on the mask.
    """
    regions = connected_objects(mask)
    # A frame of background: OpenCV ignores the image's edge, and knows no distance in an all-true mask.
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    distance = _blur(distance, SEED_SIGMA * nuclear_diameter)
    separation = max(1, round(SEED_DISTANCE * nuclear_diameter))
    # Seeds are sought region by region, so that every region has one and no foreground is lost.
    peaks = peak_local_max(distance, min_distance=separation, labels=regions, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask, connectivity=2).astype(np.int32)


def drop_cut_cells(cells: Int[np.ndarray, "height width"], nuclear_diameter: float) -> Int[np.ndarray, "height width"]:
    """The objects without those that the frame of the image cuts; labels stay as they are.

    A cell is cut if more than `CUT_CONTACT` nuclear diameters of it lie on the frame: a whole cell beside the frame
    may graze it by the few pixels that an outline errs.
    """
    frame = np.concatenate([cells[0], cells[-1], cells[1:-1, 0], cells[1:-1, -1]])
    contact = np.bincount(frame, minlength=cells.max() + 1)
    contact[0] = 0
    return np.where(contact[cells] > CUT_CONTACT * nuclear_diameter, 0, cells)


def _log_over_background(image: Float[np.ndarray, "height width"], nuclear_diameter: float) -> np.ndarray:
    logarithm = np.log1p(image)
    side = 2 * round(BACKGROUND_WIDTH * nuclear_diameter / 2) + 1
    opened = cv2.morphologyEx(
        logarithm,
        cv2.MORPH_OPEN,
        cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)),
        borderType=cv2.BORDER_REPLICATE,
    )
    return logarithm - _blur(opened, BACKGROUND_WIDTH * nuclear_diameter / 2)


def _fill_holes(mask: Mask, max_pixels: float) -> Mask:
    # The frame joins all background that reaches the image's edge, which is therefore no hole.
    outside = cv2.copyMakeBorder((~mask).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1) > 0
    background = connected_objects(outside, math.floor(max_pixels) + 1, connectivity=4) > 0
    background |= _touching_frame(outside)
    return ~background[1:-1, 1:-1]


def _touching_frame(outside: Mask) -> Mask:
    regions = connected_objects(outside, connectivity=4)
    return regions == regions[0, 0]


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
