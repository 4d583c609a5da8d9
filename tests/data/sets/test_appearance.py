"""The detector of what is no HEp-2 image."""

import json

import cv2
import numpy as np
import pytest
import skimage.data

from hep2jax.data.sets import appearance
from hep2jax.data.sets.appearance import NUMBERS, Detector
from hep2jax.metrics.calibration import auroc
from tfds_builders.hep2_synthetic import generator

SIDE = 160


def _draw(seeds, pattern="fine_speckled", intensity="positive") -> list[np.ndarray]:
    names = [("fine_speckled", "centromere", "golgi")[seed % 3] for seed in seeds] if not pattern else None
    return [
        generator.generate_specimen(
            seed, names[i] if names else pattern, intensity, height=SIDE, width=SIDE, fields=1, nuclear_diameter=24
        )[0].image
        for i, seed in enumerate(seeds)
    ]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.fit(_draw(range(60), ""), _draw(range(100, 124), ""), judges_signal=True)


def test_specimens_are_like_those_of_the_training_and_pictures_are_not(detector):
    rng = np.random.default_rng(0)
    inside = [detector.novelty(image) for image in _draw(range(200, 215), "")]
    pictures = [cv2.resize(picture(), (SIDE, SIDE)) for picture in (skimage.data.camera, skimage.data.coins)]
    pictures += [rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8), np.full((SIDE, SIDE), 90, np.uint8)]
    outside = [detector.novelty(image) for image in pictures]
    assert auroc(np.array(inside), np.array(outside)) == 1.0
    assert min(outside) > 1
    assert np.mean(np.array(inside) > 1) < 0.1


def test_negative_specimens_are_fainter_than_the_training_images(detector):
    assert all(map(detector.is_faint, _draw(range(5), "negative", "negative")))
    assert detector.is_faint(np.zeros((SIDE, SIDE), np.uint8))
    assert not any(map(detector.is_faint, _draw(range(200, 210), "")))


def test_a_detector_in_json_and_back(detector):
    image = _draw([300])[0]
    again = Detector.from_record(json.loads(json.dumps(detector.to_record())))
    assert again.novelty(image) == detector.novelty(image)
    for damage in ({"mean": [1.0]}, {"threshold": 0.0}, {"least_signal": float("nan")}):
        with pytest.raises(ValueError, match="detector"):
            Detector.from_record(detector.to_record() | damage)


def test_images_of_every_size_and_kind_have_finite_numbers():
    for shape in ((1, 1), (3, 700), (64, 64), (1100, 30), (1200, 1300)):
        for level in (0, 255):
            numbers = appearance.describe(np.full(shape, level, np.uint8))
            assert numbers.shape == (NUMBERS,)
            assert np.isfinite(numbers).all(), shape


def test_the_spectrum_finds_the_octave_of_a_wave():
    columns = np.arange(256)
    for octave, period in ((0, 3), (2, 12), (4, 48)):
        wave = np.tile(127 + 100 * np.sin(2 * np.pi * columns / period), (256, 1)).astype(np.uint8)
        assert np.argmax(appearance.describe(wave)[-6:]) == octave


@pytest.mark.parametrize("shape", [(1, 1), (3, 90), (64, 70), (160, 160), (1030, 70), (1100, 1200)])
def test_a_look_is_all_that_is_said(detector, shape):
    image = cv2.resize(_draw([301])[0], shape[::-1])
    assert detector.look(image) == (detector.novelty(image), detector.is_faint(image))


def test_slopes_are_those_of_central_differences():
    for shape in ((64, 64), (65, 130), (300, 200)):
        values = np.random.default_rng(0).normal(size=shape)
        np.testing.assert_allclose(appearance.slopes(values), np.hypot(*np.gradient(values)), rtol=1e-15)
