"""Crop-mirror-rotate as one affine matrix, and its execution on the host.

A matrix maps a pixel of the crop to a pixel of the image: `image_xy = matrix @ (crop_x, crop_y, 1)`, with
pixel centres at whole numbers. Images and masks take the same matrix, bilinear and nearest.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from hep2jax.config import AugmentConfig

Draws = float | np.ndarray
"""One value, or one for each example."""


def sample_cmr(
    rng: np.random.Generator, centre_yx: tuple[float, float], crop_size: int, augment: AugmentConfig
) -> Float32[np.ndarray, "2 3"]:
    """Draw a crop-mirror-rotate-zoom matrix for a square crop around `centre_yx` (pixels).

    The same number of random values is drawn whatever the options are, so that switching one option off
    leaves the others' draws as they were. Augmentation CMR: survey section 3.2.2 (Xie et al. 2019).
    """
    uniform, coin = rng.uniform(size=2), rng.uniform()
    angle, zoom = _angles(uniform[0], augment), _zooms(uniform[1], augment)
    return cmr_matrix(centre_yx, crop_size, angle=float(angle), zoom=float(zoom), flip=float(_flips(coin, augment)))


def cmr_matrix(
    centre_yx: tuple[float, float],
    crop_size: int,
    *,
    angle: float = 0.0,
    zoom: float = 1.0,
    flip: float = 1.0,
) -> Float32[np.ndarray, "2 3"]:
    """The matrix of a crop around `centre_yx`: mirror (flip = -1), then rotate by `angle` (radians), then zoom."""
    linear = _linear(angle, zoom, flip)
    middle = (crop_size - 1) / 2
    shift = np.array(centre_yx[::-1]) - linear @ np.array([middle, middle])
    return np.concatenate([linear, shift[:, None]], axis=1).astype(np.float32)


def warp_host(
    image: UInt8[np.ndarray, "height width"],
    classes: UInt8[np.ndarray, "height width"],
    matrix: Float32[np.ndarray, "2 3"],
    crop_size: int,
) -> tuple[UInt8[np.ndarray, "crop crop"], UInt8[np.ndarray, "crop crop"]]:
    """Execute the matrix with OpenCV: image bilinear, class mask nearest, mirrored beyond the border."""
    return warp_image(image, matrix, crop_size), warp_classes(classes, matrix, crop_size)


def warp_image(
    image: UInt8[np.ndarray, "height width"], matrix: Float32[np.ndarray, "2 3"], crop_size: int
) -> UInt8[np.ndarray, "crop crop"]:
    """`warp_host` of an image alone."""
    return _warp(image, matrix, crop_size, cv2.INTER_LINEAR)


def warp_classes(
    classes: UInt8[np.ndarray, "height width"], matrix: Float32[np.ndarray, "2 3"], crop_size: int
) -> UInt8[np.ndarray, "crop crop"]:
    """`warp_host` of a class mask alone."""
    return _warp(classes, matrix, crop_size, cv2.INTER_NEAREST)


def _warp(pixels: np.ndarray, matrix: np.ndarray, crop_size: int, interpolation: int) -> np.ndarray:
    size, flags = (crop_size, crop_size), interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def sample_cell_warps(
    rng: np.random.Generator, count: int, size: int, augment: AugmentConfig
) -> Float32[np.ndarray, "count 2 3"]:
    """Draw mirror-rotate-zoom-shift matrices that map an input of `size` pixels a side to itself, about its centre."""
    draws = rng.uniform(size=(5, count))
    angles, zooms, flips = _angles(draws[0], augment), _zooms(draws[1], augment), _flips(draws[2], augment)
    warps, middle = np.empty((count, 2, 3)), (size - 1) / 2
    warps[:, :, :2] = _linear(angles, zooms, flips).transpose(2, 0, 1)
    moved = middle + augment.shift * size * (2 * draws[3:].T - 1)
    warps[:, :, 2] = moved - warps[:, :, :2] @ np.array([middle, middle])
    return warps.astype(np.float32)


def _linear(angle: Draws, zoom: Draws, flip: Draws) -> Float[np.ndarray, "2 2 *count"]:
    """Mirror (flip = -1), then rotate by `angle` (radians), then zoom, from crop to image."""
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    return np.array([[cos * flip, -sin], [sin * flip, cos]])


def _zooms(uniform: Draws, augment: AugmentConfig) -> np.ndarray:
    low, high = np.log(augment.scale_min), np.log(augment.scale_max)
    return np.exp(low + (high - low) * uniform)


def _flips(uniform: Draws, augment: AugmentConfig) -> np.ndarray:
    return np.where(augment.mirror & (np.asarray(uniform) < 0.5), -1.0, 1.0)


def _angles(uniform: Draws, augment: AugmentConfig) -> np.ndarray:
    """Radians: any angle, or the multiples of `rotation_step` degrees."""
    if not augment.rotate:
        return np.zeros_like(uniform)
    if not augment.rotation_step:
        return 2 * np.pi * np.asarray(uniform)
    steps = max(1, round(360 / augment.rotation_step))
    return np.deg2rad(np.floor(uniform * steps) * augment.rotation_step)
