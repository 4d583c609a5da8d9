import cv2
import numpy as np
import pytest

from hep2jax.config import AugmentConfig
from hep2jax.data.augment import geometry


def _matrices(count: int, centre_xy: tuple[float, float], size: int, augment: AugmentConfig, seed: int = 0):
    draws = np.random.default_rng(seed).random((len(geometry.GEOMETRY), count))
    return geometry.matrices(np.tile(centre_xy, (count, 1)), draws, size, augment)


def _warped(image: np.ndarray, classes: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    return geometry.warp_image(image, matrix, size), geometry.warp_classes(classes, matrix, size)


def _image(size: int = 97) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 255, (size, size)).astype(np.uint8), (0, 0), 2)


def test_identity_matrix_cuts_the_plain_window():
    image = _image()
    matrix = geometry.cmr_matrix((48, 40), 33)
    crop, mask = _warped(image, image, matrix, 33)
    expected = image[32:65, 24:57]
    np.testing.assert_array_equal(crop, expected)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_exact(quarter: int):
    image = _image()
    matrix = geometry.cmr_matrix((48, 48), 33, angle=quarter * np.pi / 2)
    crop, _ = _warped(image, image, matrix, 33)
    window = image[32:65, 32:65].astype(int)
    turned = [np.rot90(window, k) for k in range(4)]
    errors = [np.abs(crop - t).max() for t in turned]
    assert min(errors) <= 1
    assert int(np.argmin(errors)) in (quarter, 4 - quarter)


def test_mirror_is_exact():
    image = _image()
    crop, _ = _warped(image, image, geometry.cmr_matrix((48, 48), 33, flip=-1.0), 33)
    np.testing.assert_array_equal(crop, image[32:65, 32:65][:, ::-1])


def test_zoom_two_halves_the_distance_between_neighbours():
    matrix = geometry.cmr_matrix((10, 20), 9, zoom=2.0)
    np.testing.assert_allclose(matrix @ [4, 4, 1], [20, 10])
    np.testing.assert_allclose(matrix @ [5, 4, 1], [20.5, 10])


def test_image_and_mask_take_the_same_matrix():
    rows, columns = np.mgrid[:200, :200]
    mask = ((rows - 90) ** 2 + (columns - 110) ** 2 < 900).astype(np.uint8)
    for matrix in _matrices(20, (105, 95), 96, AugmentConfig(), seed=1):
        crop, warped = _warped(mask * 200, mask, matrix, 96)
        assert np.mean((crop > 100) != warped) < 0.01


def test_sampled_matrices_keep_to_the_configured_range():
    augment = AugmentConfig(scale_min=0.8, scale_max=1.25)
    linear = _matrices(500, (0, 0), 64, augment, seed=2)[:, :, :2]
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(linear)))
    assert zoom.min() >= 0.8 - 1e-6
    assert zoom.max() <= 1.25 + 1e-6
    assert 0.4 < np.mean(np.linalg.det(linear) < 0) < 0.6  # mirrored half the time
    angle = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    assert angle.min() < -2.5
    assert angle.max() > 2.5


def test_switches_turn_single_effects_off():
    still = AugmentConfig(mirror=False, rotate=False, scale_min=1.0, scale_max=1.0)
    for matrix in _matrices(5, (60, 50), 64, still):
        np.testing.assert_allclose(matrix, geometry.cmr_matrix((50, 60), 64))


def test_unmirrored_angles_go_all_the_way_round():
    warps = _matrices(500, (0, 0), 64, AugmentConfig(mirror=False))
    quadrants = np.floor(np.arctan2(warps[:, 1, 0], warps[:, 0, 0]) / (np.pi / 2)).astype(int) + 2
    assert (np.bincount(quadrants, minlength=4) > 90).all()


def test_the_middle_of_a_crop_is_mapped_to_its_centre():
    for matrix in _matrices(20, (60.5, 50.25), 64, AugmentConfig()):
        np.testing.assert_allclose(matrix @ [31.5, 31.5, 1], [60.5, 50.25], atol=1e-4)


def test_switching_one_operation_off_leaves_the_others():
    def areas(augment: AugmentConfig) -> np.ndarray:
        return np.abs(np.linalg.det(_matrices(50, (0, 0), 64, augment)[:, :, :2]))

    np.testing.assert_allclose(areas(AugmentConfig()), areas(AugmentConfig(rotate=False, mirror=False)), rtol=1e-5)


def test_beyond_the_border_lies_the_mirror_image():
    image = np.random.default_rng(0).integers(0, 255, (20, 24)).astype(np.uint8)
    crop, classes = _warped(image, image, geometry.cmr_matrix((3.5, 19.5), 16), 16)
    expected = np.pad(image, 8, mode="reflect")[4:20, 20:36]  # rows -4 to 11, columns 12 to 27
    np.testing.assert_array_equal(crop, expected)
    np.testing.assert_array_equal(classes, expected)
