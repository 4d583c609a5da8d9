"""Segmentation by Otsu's threshold and a watershed: the classical baseline for the networks.

Every length is a fixed fraction of the nuclear diameter. The fractions were chosen before any measurement and are not
fitted to any image.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, UInt8
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from hep2jax.data.sets import framing
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
Labels = Int32[np.ndarray, "height width"]


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
    mask = bright(image, variant=variant, nuclear_diameter=nuclear_diameter, smoothing_sigma=smoothing_sigma)
    return separate(mask, nuclear_diameter, min_pixels)


def bright(image: Grey, *, variant: str, nuclear_diameter: float, smoothing_sigma: float | None = None) -> Mask:
    """The pixels above the threshold of `segment`, with the same arguments; holes and specks are still there."""
    if np.ptp(image) == 0:
        return np.zeros(image.shape, bool)
    sigma = SMOOTHING_SIGMA * nuclear_diameter if smoothing_sigma is None else smoothing_sigma
    contrast = _blur(image.astype(np.float32), sigma)
    if variant == "otsu_log_watershed":
        contrast = log_over_background(contrast, BACKGROUND_WIDTH * nuclear_diameter)
    # Otsu's 256 bins need float64: in a blurred flat image the differences are too small for bin edges in float32.
    return contrast > threshold_otsu(contrast.astype(np.float64))


def separate(mask: Mask, nuclear_diameter: float, min_pixels: int | None = None) -> Int[np.ndarray, "height width"]:
    """The cells of a foreground mask: holes are filled, specks removed, and touching nuclei parted.

    They are parted by a watershed on the smoothed distance transform.

    Args:
        mask: bool [height, width].
        nuclear_diameter: in pixels; maxima closer than `SEED_DISTANCE` times this stay one object.
        min_pixels: area of the smallest region to keep; None: `MIN_AREA` times the area of a nominal nucleus.

    Returns:
        int32 [height, width], 0 = background, objects 1, 2, ...
    """
    nucleus_area = math.pi / 4 * nuclear_diameter**2
    least = round(MIN_AREA * nucleus_area) if min_pixels is None else min_pixels
    filled = _fill_holes(mask, MAX_HOLE_AREA * nucleus_area)
    return _split_regions(connected_objects(filled, least), nuclear_diameter)


def _split_regions(regions: Labels, nuclear_diameter: float) -> Labels:
    """`separate` of the mask whose connected regions these are."""
    distance = _blur(distance_to_background(regions > 0), SEED_SIGMA * nuclear_diameter)
    separation = max(1, round(SEED_DISTANCE * nuclear_diameter))
    return flood(distance, regions, region_peaks(distance, regions, separation))


def distance_to_background(mask: Mask) -> Float32[np.ndarray, "height width"]:
    """The distance of each pixel of a mask from the nearest pixel outside it or outside the image, in pixels."""
    return framing.distances(np.pad(mask, 1))[1:-1, 1:-1]


def flood(heights: Float32[np.ndarray, "height width"], regions: Labels, peaks: Int[np.ndarray, "peaks 2"]) -> Labels:
    """The regions, divided by a watershed on their heights where they have several peaks.

    The same as scikit-image's watershed of all regions; those with one peak need no flood.

    Args:
        heights: as for `region_peaks`.
        regions: likewise.
        peaks: from `region_peaks`; those of a region follow each other, from the highest down.

    Returns:
        int32 [height, width]; each object has the number of its peak, from 1. A region without a peak is no object.
    """
    places, numbers = tuple(peaks.T), np.arange(1, len(peaks) + 1, dtype=np.int32)
    labels = regions[places]
    of_region = np.zeros(regions.max(initial=0) + 1, np.int32)
    of_region[labels] = numbers
    shared = np.bincount(labels, minlength=len(of_region)) > 1
    if not shared.any():
        return of_region[regions]
    # Which of two equally high peaks floods first depends on the queue, and this on all peaks of the image.
    tied = ((np.diff(labels) == 0) & (np.diff(heights[places]) == 0)).any()
    divided, seeds = regions > 0 if tied else shared[regions], np.zeros(regions.shape, np.int32)
    seeds[places] = numbers
    return np.where(divided, watershed(-heights, seeds, mask=divided, connectivity=2), of_region[regions])


def region_peaks(
    heights: Float32[np.ndarray, "height width"], regions: Labels, separation: int
) -> Int[np.ndarray, "peaks 2"]:
    """The highest pixels of each region, at least `separation` pixels apart.

    They are those of `skimage.feature.peak_local_max(heights, min_distance=separation, labels=regions,
    exclude_border=False)`, in the same order, which calls filters for each region; this takes a tenth of the time.

    Args:
        heights: not negative.
        regions: 8-connected regions, 0 = none, as from `connected_objects`.
        separation: in pixels, along the axis in which two peaks are further apart; at least 1.

    Returns:
        (row, column) of each peak, by region, and in a region from the highest down; of equal ones the first in scan
        order comes first. A region has a peak unless all its heights are the lowest of the image, or all are equal
        and it has no pixel that an opening by a cross removes.
    """
    inside = np.where(regions > 0, heights, np.float32(-1))
    # Neighbours in the mask are in the same region, so that a peak of a region is highest among all its neighbours.
    peaks = np.argwhere((inside == _highest_within(inside, 1)) & (regions > 0))
    peaks = peaks[_is_highest(inside, regions, peaks, separation)]
    peaks = peaks[_is_no_plain(regions, peaks) & (heights[tuple(peaks.T)] > heights.min(initial=np.inf))]
    labels, values = regions[tuple(peaks.T)], heights[tuple(peaks.T)]
    peaks = peaks[np.lexsort((-values, labels))]
    return _spaced(peaks, regions[tuple(peaks.T)], separation) if separation > 1 else peaks


def _highest_within(heights: np.ndarray, distance: int) -> np.ndarray:
    """The highest value in the square of pixels up to `distance` away along each axis."""
    return cv2.dilate(heights, np.ones((2 * distance + 1, 2 * distance + 1), np.uint8))


def _is_highest(inside: np.ndarray, regions: Labels, places: np.ndarray, distance: int) -> np.ndarray:
    """Which places are as high as every pixel of their region up to `distance` away along each axis."""
    highest = (inside == _highest_within(inside, distance))[tuple(places.T)]
    for number in np.flatnonzero(~highest).tolist():  # something higher is near, perhaps in another region
        y, x = places[number].tolist()
        near = np.s_[max(y - distance, 0) : y + distance + 1, max(x - distance, 0) : x + distance + 1]
        highest[number] = inside[near][regions[near] == regions[y, x]].max() == inside[y, x]
    return highest


def _is_no_plain(regions: Labels, places: np.ndarray) -> np.ndarray:
    """Which places are not in a region of one height, or are such that an opening by a cross removes them.

    In a region of one height, every pixel is among the places.
    """
    labels = regions[tuple(places.T)]
    plain = (np.bincount(labels) == np.bincount(regions.ravel())[: labels.max(initial=0) + 1])[labels]
    if not plain.any():
        return ~plain
    framed = cv2.copyMakeBorder((regions > 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opened = cv2.morphologyEx(framed, cv2.MORPH_OPEN, cross)[1:-1, 1:-1]
    return ~plain | (opened[tuple(places.T)] == 0)


def _spaced(peaks: np.ndarray, labels: np.ndarray, separation: int) -> np.ndarray:
    """The peaks without those that are nearer than `separation` to an earlier one of their region."""
    starts = np.flatnonzero(np.diff(labels, prepend=0))
    kept = []
    for rest in np.split(peaks, starts[1:]):
        while len(rest):
            kept.append(rest[0])
            rest = rest[np.abs(rest - rest[0]).max(axis=1) >= separation] if len(rest) > 1 else rest[1:]
    return np.reshape(kept, (-1, 2)).astype(np.int64)


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
    regions = connected_objects(outside, connectivity=4)
    is_background = np.bincount(regions.ravel()) > math.floor(max_pixels)
    is_background[0], is_background[regions[0, 0]] = False, True
    return ~is_background[regions][1:-1, 1:-1]


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
