import numpy as np
import pytest

from hep2jax.specimens import texture


def waves(angle: float, seed: int = 0, size: int = 160) -> np.ndarray:
    """A smooth random texture in a round window, turned by `angle` radians about the middle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    y = np.cos(angle) * rows - np.sin(angle) * columns
    x = np.sin(angle) * rows + np.cos(angle) * columns
    image = np.zeros((size, size))
    for _ in range(40):
        direction, wavelength, phase = rng.uniform(0, 2 * np.pi), rng.uniform(6, 14), rng.uniform(0, 2 * np.pi)
        along = x * np.cos(direction) + y * np.sin(direction)
        image += np.sin(2 * np.pi * along / wavelength + phase)
    return image * (np.hypot(y, x) < size / 3)


def test_136_labels_as_in_the_authors_table():
    """Entries of the mapping table in their public code, there from 1 on."""
    labels = texture.pair_labels() + 1
    assert labels.shape == (16, 16)
    assert set(labels.ravel()) == set(range(1, 137))
    assert labels[0].tolist() == list(range(1, 17))
    assert labels[1].tolist() == [5, *range(17, 32)]
    assert labels[2].tolist() == [9, 32, 33, 34, 24, *range(35, 46)]
    assert labels[15].tolist() == [16, 70, 108, 130, 31, 81, 115, 133, 45, 91, 121, 135, 58, 100, 126, 136]


def test_quarter_turns_change_nothing():
    """A frame of one grey level keeps pairs at the border out of it."""
    image = np.pad(np.random.default_rng(0).integers(0, 255, (40, 52)), 28)
    upright = texture.ric_lbp(image)
    assert upright.shape == (3 * texture.NUM_LABELS,)
    np.testing.assert_allclose(upright.reshape(3, -1).sum(1), 1)
    for quarter in (1, 2, 3):
        np.testing.assert_array_equal(texture.ric_lbp(np.rot90(image, quarter)), upright)
    assert (texture.ric_lbp(image[:, ::-1]) != upright).any()  # mirror images are told apart


def test_eighths_of_a_turn_change_less_than_another_texture():
    upright, turned, other = (texture.ric_lbp(image) for image in (waves(0), waves(np.pi / 4), waves(0, seed=1)))
    assert np.abs(turned - upright).sum() < 0.5 * np.abs(other - upright).sum()


def test_only_the_order_of_grey_levels_matters():
    image = np.random.default_rng(0).integers(0, 200, (50, 60))
    np.testing.assert_array_equal(texture.ric_lbp(image), texture.ric_lbp(np.exp(image / 40)))


def test_small_and_unfit_images():
    assert texture.ric_lbp(np.zeros((10, 10))).reshape(3, -1).sum(1).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="grey image"):
        texture.ric_lbp(np.zeros((10, 10, 3)))
