"""From the stain to the camera image: uneven illumination, point spread, haze, noise, quantisation."""

import math

import cv2
import numpy as np

from tfds_builders.hep2_synthetic.parameters import FieldConditions, SpecimenParameters
from tfds_builders.hep2_synthetic.textures import smooth

SATURATION = 254
"""Highest grey level of the camera (I3A: 6 % of the cells reach 254, none 255)."""


def photograph(
    rng: np.random.Generator,
    stain: np.ndarray,
    specimen: SpecimenParameters,
    conditions: FieldConditions,
    focus: float = 1.0,
) -> np.ndarray:
    """Turns the stain of a field into the image that the camera records.

    Args:
      rng: source of randomness.
      stain: float32 [height, width], grey levels above the background.
      specimen: the specimen's parameters.
      conditions: the conditions of this field.
      focus: factor on the width of the point spread function in this field.

    Returns:
      uint8 [height, width], 0 to `SATURATION`.
    """
    d = specimen.diameter
    sharp = smooth(stain, math.hypot(specimen.point_spread * focus, conditions.defocus) * d)
    light = (1 - specimen.haze) * sharp + specimen.haze * _wide_blur(stain, specimen.haze_sigma * d)
    fall = specimen.illumination + conditions.illumination
    level = (light + specimen.background) * _illumination(rng, stain.shape, fall)
    return _camera(rng, level * np.float32(conditions.exposure), specimen.shot_noise, specimen.read_noise)


def _wide_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of several pixels, computed at a quarter (or less) of the resolution to save time."""
    factor = max(int(sigma / 1.5), 1)
    height, width = image.shape
    small = cv2.resize(image, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(smooth(small, sigma / factor), (width, height), interpolation=cv2.INTER_LINEAR)


def _illumination(rng: np.random.Generator, shape: tuple[int, int], fall: float) -> np.ndarray:
    """Draws the light's relative strength, float32 [height, width]: a parabola around a place near the middle."""
    height, width = shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - np.float32(rng.normal(0, 0.3))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] - np.float32(rng.normal(0, 0.3))
    tilt = np.float32(rng.normal(0, 0.15) * fall)
    return 1 + np.float32(fall) * (np.float32(0.3) - (x * x + y * y) / 2) + tilt * x


def _camera(rng: np.random.Generator, level: np.ndarray, shot_noise: float, read_noise: float) -> np.ndarray:
    """Adds shot and read noise and quantises.

    A grey level is about 1 / `shot_noise` = 45 photo-electrons, so the Poisson distribution of the shot noise is
    indistinguishable from a normal one, which is several times faster to sample.
    """
    sigma = np.sqrt(np.maximum(level, 0) * np.float32(shot_noise) + np.float32(read_noise**2))
    noisy = level + sigma * rng.standard_normal(level.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, SATURATION).astype(np.uint8)
