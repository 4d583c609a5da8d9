"""The classical baseline on drawn cells, where the truth is known to the pixel."""

from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from hep2jax import metrics
from hep2jax.specimens import classical

DIAMETER = 31.0
CENTRES = ((30, 30), (30, 120), (75, 80), (110, 30), (112, 130), (75, 107))


def _discs(centres=CENTRES, shape=(150, 170), radius=DIAMETER / 2):
    rows, columns = np.indices(shape)
    objects = np.zeros(shape, np.int32)
    for label, (y, x) in enumerate(centres, start=1):
        objects[((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & (objects == 0)] = label
    return objects


def _field(objects, levels, *, background=15.0, slope=0.0, seed=0):
    """uint8 image: a level for each object over an illumination ramp, with read noise."""
    illumination = 1 + slope * np.linspace(-1, 1, objects.shape[1])
    image = (background + np.r_[0.0, levels][objects]) * illumination
    noisy = image + np.random.default_rng(seed).normal(0, 1.0, objects.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _dice(prediction, truth):
    return metrics.count_pixels(prediction, truth, np.ones(truth.shape, bool)).ratios().Dice


@pytest.mark.parametrize("variant", classical.VARIANTS)
def test_finds_and_splits_cells(variant):
    truth = _discs()
    image = _field(truth, [60, 70, 60, 80, 65, 60])
    objects = classical.segment(image, variant=variant, nuclear_diameter=DIAMETER)
    assert objects.dtype == np.int32
    assert objects.max() == len(CENTRES)  # the third and the sixth touch
    assert _dice(objects > 0, truth > 0) > 0.97
    assert metrics.seg_score(objects, truth).min() > 0.85


@pytest.mark.parametrize(
    ("background", "levels", "slope"),
    [(15, [140, 25, 130, 150, 30, 28], 0.0), (40, np.full(6, 60.0), 0.7)],
    ids=["unequal cells", "uneven light"],
)
def test_log_variant_survives_what_a_global_threshold_does_not(background, levels, slope):
    truth = _discs(radius=11)
    image = _field(truth, levels, background=background, slope=slope)
    dice = {
        variant: _dice(classical.segment(image, variant=variant, nuclear_diameter=22.0) > 0, truth > 0)
        for variant in classical.VARIANTS
    }
    assert dice["otsu_log_watershed"] > 0.9
    assert dice["otsu_watershed"] < 0.75


@pytest.mark.parametrize("variant", classical.VARIANTS)
@pytest.mark.parametrize("value", [0, 20, 255])
def test_flat_image_has_no_cells(variant, value):
    image = np.full((40, 50), value, np.uint8)
    assert not classical.segment(image, variant=variant, nuclear_diameter=DIAMETER).any()


@pytest.mark.parametrize("sigma", [0, 2, 8, 30])
@pytest.mark.parametrize("variant", classical.VARIANTS)
def test_nearly_flat_image_is_not_all_cells(variant, sigma):
    image = np.full((200, 200), 250, np.uint8)
    image[100, 100] = 251
    objects = classical.segment(image, variant=variant, nuclear_diameter=DIAMETER, smoothing_sigma=sigma)
    assert np.count_nonzero(objects) < 200 * 200 / 2


def test_specks_go_and_small_holes_fill():
    truth = _discs()
    image = _field(truth, np.full(6, 80.0))
    image[28:33, 28:33] = 15  # a hole in a cell
    image[5:8, 5:8] = 120  # a speck
    objects = classical.segment(image, nuclear_diameter=DIAMETER, smoothing_sigma=0.5)
    assert objects[28:33, 28:33].all()
    assert not objects[3:10, 3:10].any()
    kept = classical.segment(image, nuclear_diameter=DIAMETER, smoothing_sigma=0.5, min_pixels=1)
    assert kept[6, 6] > 0


def test_a_gap_wider_than_a_nucleus_is_no_hole():
    image = np.full((150, 150), 20, np.uint8)
    image[10:140, 10:140] = 100
    image[40:110, 40:110] = 20
    objects = classical.segment(image, nuclear_diameter=DIAMETER)
    assert not objects[50:100, 50:100].any()


def test_background_cut_off_by_a_cell_at_the_edge_is_no_hole():
    image = np.full((100, 100), 20, np.uint8)
    rows, columns = np.indices(image.shape)
    ring = np.abs(np.hypot(rows, columns) - 20) < 6  # around the corner, whose background is smaller than a nucleus
    image[ring] = 100
    objects = classical.segment(image, nuclear_diameter=DIAMETER)
    assert not objects[:8, :8].any()
    assert _dice(objects > 0, ring) > 0.9


def test_background_of_a_crop_smaller_than_a_nucleus_is_no_hole():
    truth = _discs(((20, 20),), (40, 40), radius=13)
    image = _field(truth, [80.0])
    objects = classical.segment(image, nuclear_diameter=77.0, smoothing_sigma=1.0)
    assert _dice(objects > 0, truth > 0) > 0.95


def _without_holes(mask: np.ndarray, largest: float) -> np.ndarray:
    """The mask with background regions (4-connected) of up to `largest` pixels filled, except those at the edge."""
    regions, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
    small = [label for label in range(1, count + 1) if label != regions[0, 0] and (regions == label).sum() <= largest]
    return mask | np.isin(regions, small)[1:-1, 1:-1]


def test_cells_are_the_mask_without_holes_and_specks():
    filled = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centres = [tuple(c) for c in rng.uniform(0, 120, (rng.integers(1, 25), 2))]
        mask = (_discs(centres, (120, 120), radius=9.0) > 0) | (rng.random((120, 120)) < 0.02)
        mask &= rng.random((120, 120)) > 0.05
        objects, whole = classical.separate(mask, 18.0, 0), _without_holes(mask, np.pi * 81)
        filled += (whole & ~mask).sum()
        np.testing.assert_array_equal(objects > 0, whole)
        regions = metrics.connected_objects(whole)
        sized = metrics.connected_objects(whole, 20)
        np.testing.assert_array_equal(classical.separate(mask, 18.0, 20) > 0, sized > 0)
        np.testing.assert_array_equal(classical.separate(mask, 18.0) > 0, metrics.connected_objects(whole, 25) > 0)
        for label in range(1, objects.max() + 1):
            assert len(np.unique(regions[objects == label])) == 1
    assert filled > 100


@pytest.mark.parametrize(("value", "count"), [(False, 0), (True, 1)])
def test_cells_of_uniform_masks(value, count):
    assert classical.separate(np.full((20, 20), value), 30.0).max() == count


def test_distances_are_exact():
    """OpenCV's differ from call to call in the last place, and objects did with them."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        smooth = cv2.GaussianBlur(rng.random(tuple(rng.integers(1, 300, 2))), (0, 0), rng.uniform(0.5, 20))
        mask = smooth > np.quantile(smooth, rng.uniform(0, 0.5))
        expected: Any = ndimage.distance_transform_edt(np.pad(mask, 1))
        np.testing.assert_array_equal(classical.distance_to_background(mask), expected[1:-1, 1:-1].astype(np.float32))


def test_scales_with_the_nuclear_diameter():
    truth = _discs()
    image = _field(truth, np.full(6, 70.0))
    twice = np.kron(image, np.ones((2, 2), np.uint8))
    small = classical.segment(image, nuclear_diameter=DIAMETER)
    large = classical.segment(twice, nuclear_diameter=2 * DIAMETER)
    assert large.max() == small.max()
    assert _dice(large[::2, ::2] > 0, small > 0) > 0.98


@pytest.mark.usefixtures("unchecked")
def test_wrong_input():
    image = np.zeros((10, 10), np.uint8)
    with pytest.raises(ValueError, match="variant 'otsu': must be one of otsu_watershed, otsu_log_watershed"):
        classical.segment(image, variant="otsu")
    with pytest.raises(ValueError, match=r"expected a uint8 image \[height, width\], got uint8 \(10, 10, 3\)"):
        classical.segment(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        classical.segment(image.astype(np.float32))
    with pytest.raises(ValueError, match="nuclear_diameter=0"):
        classical.segment(image, nuclear_diameter=0)


def test_cells_that_the_frame_cuts_are_dropped():
    cells = np.zeros((20, 30), np.int32)
    cells[0:4, 5:9], cells[8:12, 8:12], cells[17:20, 20:25], cells[5:9, 26:30] = 1, 2, 3, 4
    cells[12:16, 15:19] = cells[16:20, 16:17] = 5  # grazes the frame with one pixel
    kept = classical.drop_cut_cells(cells, nuclear_diameter=6)
    np.testing.assert_array_equal(kept, np.where(np.isin(cells, [2, 5]), cells, 0))
    assert not classical.drop_cut_cells(np.zeros((5, 5), np.int32), 6).any()


def _regions_and_heights(seed):
    """Regions of every size from single pixels up, with the heights that they have in `separate`, or others."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2))
    smooth = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.1, 6))
    regions = metrics.connected_objects(smooth > np.quantile(smooth, rng.uniform(0, 1)))
    heights = cv2.distanceTransform((regions > 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    heights = cv2.GaussianBlur(heights, (0, 0), rng.uniform(0.2, 3)) if seed % 3 else heights
    return regions, np.round(heights, 1) if seed % 5 == 0 else np.minimum(heights, 1e3)


@pytest.mark.parametrize("separation", [1, 2, 3, 7, 20])
def test_the_peaks_of_regions_are_those_of_scikit_image(separation):
    number = 0
    for seed in range(200):
        regions, heights = _regions_and_heights(seed)
        expected = peak_local_max(heights, min_distance=separation, labels=regions, exclude_border=False)
        np.testing.assert_array_equal(classical.region_peaks(heights, regions, separation), expected, str(seed))
        number += len(expected)
    assert number > 1000


def test_the_watershed_divides_as_that_of_the_whole_mask():
    """Only regions with several peaks are flooded; objects and their numbers are those of a flood of all."""
    divided = 0
    for seed in range(60):
        regions, heights = _regions_and_heights(seed)
        peaks = classical.region_peaks(heights, regions, 3)
        seeds = np.zeros(regions.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        expected = watershed(-heights, seeds, mask=regions > 0, connectivity=2)
        np.testing.assert_array_equal(classical.flood(heights, regions, peaks), expected)
        divided += len(peaks) > regions.max()
    assert divided > 20
