"""Channels, descriptors and scalars of one cell, each against something computed in another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hep2jax.fisher import channels, scalars
from hep2jax.fisher.descriptors import DESCRIPTORS, blur_matrix, grid
from tests.data.cell_tables import picture

SIDE = 48


def _cell(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    image, mask = picture("dots", np.random.default_rng(seed))
    return image[12 : 12 + SIDE, 12 : 12 + SIDE].astype(np.float32), mask[12 : 12 + SIDE, 12 : 12 + SIDE]


def _views(image: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(image, quarter) for quarter in range(4)]
    return turned + [view[:, ::-1] for view in turned]


def test_depth_is_the_euclidean_distance_to_the_outline_in_radii():
    mask = _cell()[1]
    inside, outside = ndimage.distance_transform_edt(mask) - 0.5, 0.5 - ndimage.distance_transform_edt(~mask)
    expected = np.where(mask, inside, outside) / np.sqrt(mask.sum() / np.pi)
    np.testing.assert_allclose(jax.jit(channels.depth)(mask), expected, atol=1e-5)
    assert not np.asarray(jax.jit(channels.depth)(np.zeros_like(mask))).any()


def test_quantiles_are_those_of_the_chosen_pixels():
    image, mask = map(jnp.asarray, _cell())
    shares = (0.0, 0.1, 0.5, 0.99, 1.0)
    np.testing.assert_allclose(channels.quantiles(image, mask, shares), np.quantile(image[mask], shares), rtol=1e-6)
    assert not np.asarray(channels.quantiles(image, jnp.zeros_like(mask), shares)).any()


def test_channels_do_not_depend_on_gain_and_offset():
    image, mask = _cell()
    brighter, net, mad = 3 * image + 20, jax.jit(channels.net), jax.jit(channels.mad)
    np.testing.assert_allclose(net(brighter, mask), net(image, mask), atol=1e-4)
    low, high = np.quantile(image[mask], (0.1, 0.9))
    expected = (image - np.median(image[mask])) / (high - low + 1)
    np.testing.assert_allclose(mad(image, mask), expected, atol=1e-4)


def test_a_blur_as_a_matrix():
    image = _cell()[0]
    matrix = blur_matrix(SIDE, 1.5)
    expected = ndimage.gaussian_filter(image.astype(np.float64), 1.5, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(matrix @ image @ matrix.T, expected, atol=1e-6)


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=lambda descriptor: descriptor.name)
def test_turning_the_image_moves_the_points_and_permutes_the_components(descriptor):
    describe, count = jax.jit(descriptor), len(grid(SIDE))
    image = _cell()[0] / 50
    plain = np.asarray(describe(image)).reshape(count, count, -1)
    seen = set()
    for view in _views(image):
        turned = np.asarray(describe(np.ascontiguousarray(view))).reshape(count, count, -1)
        moved = _views(plain)
        pairs = [(place, copy) for place in range(8) for copy in range(8)]
        fits = [
            (place, copy)
            for place, copy in pairs
            if np.abs(moved[place][..., descriptor.symmetries[copy]] - turned).max() < 1e-3
        ]
        assert len(fits) == 1
        seen |= set(fits)
    assert {copy for _, copy in seen} == set(range(8))  # every permutation belongs to one view


def test_sift_of_a_ramp_points_up_the_ramp():
    ramp = np.tile(np.arange(SIDE, dtype=np.float32), (SIDE, 1))
    count = len(grid(SIDE))
    middle = np.asarray(jax.jit(DESCRIPTORS[0])(ramp)).reshape(count, count, 16, 8)[count // 2, count // 2]
    np.testing.assert_allclose(middle[:, 0], 0.25, atol=1e-3)  # sixteen equal bins, unit sum, square root
    np.testing.assert_allclose(middle[:, 1:], 0.0, atol=1e-3)


def test_scalars_and_shape_do_not_depend_on_how_the_cell_lies():
    image, mask = _cell()
    measure = jax.jit(lambda image, mask: (scalars.scalars(image, mask, channels.depth(mask)), scalars.shape(mask)))
    views = [
        measure(np.ascontiguousarray(a), np.ascontiguousarray(b))
        for a, b in zip(_views(image), _views(mask), strict=True)
    ]
    for numbers, shape in views[1:]:
        np.testing.assert_allclose(numbers, views[0][0], atol=2e-3)
        np.testing.assert_allclose(shape, views[0][1], atol=1e-4)


def test_the_euler_number_counts_parts_less_holes():
    rng = np.random.default_rng(1)
    region = ndimage.gaussian_filter(rng.normal(size=(40, 40)), 1.2) > 0.1
    parts = ndimage.label(region, np.ones((3, 3)))[1]
    holes = ndimage.label(np.pad(~region, 1, constant_values=True))[1] - 1  # the outside is no hole
    assert scalars.euler_number(jnp.asarray(region)) == parts - holes


def test_openings_and_closings_by_squares():
    image = _cell()[0]
    region = jnp.ones(image.shape, bool)
    taken = np.asarray(jax.jit(lambda image: scalars._grains(image, (region,)))(image))
    for place, side in enumerate(scalars.GRAINS):
        opened = ndimage.grey_dilation(ndimage.grey_erosion(image, side, mode="nearest"), side, mode="nearest")
        assert taken[2 * place] == pytest.approx(np.mean(image - opened), rel=1e-4)
    assert (np.diff(taken[::2]) >= 0).all()  # a larger square takes more away
