"""Percentiles of grey levels equal those of NumPy in every bit."""

import numpy as np

from hep2jax import grey_levels


def test_percentiles_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for number in range(500):
        shape, top = rng.integers(1, 60, 2), rng.integers(1, 256)
        image = rng.integers(0, top, shape).astype(np.uint8)
        image = np.maximum(image, 255 - image) if number % 2 else image
        ranks = [0, 1, 25, 50, 75, 95, 99.8, 99.9, 100, *rng.uniform(0, 100, 9)]
        np.testing.assert_array_equal(grey_levels.percentiles(image, ranks), np.percentile(image, ranks))


def test_images_may_be_parts_of_others():
    image = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(
        grey_levels.percentiles(image[2:7, ::3], [3, 50]), np.percentile(image[2:7, ::3], [3, 50])
    )


def test_images_with_more_pixels_than_single_precision_counts():
    image = np.zeros((4100, 4200), np.uint8)
    image[0, :2] = 9
    np.testing.assert_array_equal(
        grey_levels.percentiles(image, [100 - 1e-5, 50]), np.percentile(image, [100 - 1e-5, 50])
    )
