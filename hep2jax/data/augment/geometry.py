"""Geometric operations as one affine matrix for each crop, and its application on the host.

A matrix maps a pixel of the crop to a pixel of the picture: `picture_xy = matrix @ (crop_x, crop_y, 1)`, with pixel
centres at integers. The same matrix is applied to an image (bilinear) and to its mask (nearest neighbour). The device
applies the same matrices inside the training step (`hep2jax.ops.crops`), so an operation that is added to `GEOMETRY`
works on both without further code.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, Num, UInt8

from hep2jax.config import AugmentConfig

Linear = Float[np.ndarray, "2 2 crop"]
"""The linear parts of the matrices that map crops to pictures."""


def rotated(linear: Linear, uniform: Float[np.ndarray, " crop"], augment: AugmentConfig) -> Linear:
    """Rotation by any angle, or by a multiple of `augment.rotation_step` degrees."""
    return _turned(linear, _angles(uniform, augment))


def zoomed(linear: Linear, uniform: Float[np.ndarray, " crop"], augment: AugmentConfig) -> Linear:
    """Magnification by a log-uniform factor between `augment.scale_min` and `augment.scale_max`."""
    low, high = np.log(augment.scale_min), np.log(augment.scale_max)
    return linear / np.exp(low + (high - low) * uniform)


def mirrored(linear: Linear, uniform: Float[np.ndarray, " crop"], augment: AugmentConfig) -> Linear:
    """Mirror image from left to right, for half of the crops."""
    return _flipped(linear, np.where(augment.mirror & (uniform < 0.5), -1.0, 1.0))


GEOMETRY: tuple[Callable[..., Linear], ...] = (rotated, zoomed, mirrored)
"""The operations, in the order in which they are multiplied; each takes one random number in [0, 1) for each crop.

A number is drawn for an operation even if it is switched off, so that the random numbers of the others do not change.
Augmentation by crop, mirror and rotation: survey section 3.2.2 (Xie et al. 2019).
"""


def matrices(
    centres: Num[np.ndarray, "crop 2"],
    draws: Float[np.ndarray, "operation crop"],
    size: int,
    augment: AugmentConfig,
) -> Float32[np.ndarray, "crop 2 3"]:
    """Matrices of square crops of `size` pixels a side.

    Args:
        centres: (x, y) to which the middle of each crop is mapped.
        draws: random numbers in [0, 1), a row for each operation of `GEOMETRY`.
        size: height and width of the crops.
        augment: the ranges of the operations.
    """
    linear = _identity(len(centres))
    for operation, uniform in zip(GEOMETRY, draws, strict=True):
        linear = operation(linear, uniform, augment)
    return _centred(linear, centres, size)


def cmr_matrix(
    centre_yx: tuple[float, float], crop_size: int, *, angle: float = 0.0, zoom: float = 1.0, flip: float = 1.0
) -> Float32[np.ndarray, "2 3"]:
    """The matrix of one crop around `centre_yx`: mirrored (flip = -1), rotated by `angle` (radians), then zoomed."""
    linear = _flipped(_turned(_identity(1), np.array([angle])) / zoom, np.array([flip]))
    return _centred(linear, np.array([centre_yx[::-1]]), crop_size)[0]


def warp_image(
    image: UInt8[np.ndarray, "height width *channel"], matrix: Float32[np.ndarray, "2 3"], crop_size: int
) -> UInt8[np.ndarray, "crop crop *channel"]:
    """Cut a crop from an image with OpenCV, by bilinear interpolation; beyond its border, the image is mirrored."""
    return _warp(image, matrix, crop_size, cv2.INTER_LINEAR)


def warp_classes(
    classes: UInt8[np.ndarray, "height width"], matrix: Float32[np.ndarray, "2 3"], crop_size: int
) -> UInt8[np.ndarray, "crop crop"]:
    """Cut a crop from a class mask with OpenCV, by nearest neighbour; beyond its border, the mask is mirrored."""
    return _warp(classes, matrix, crop_size, cv2.INTER_NEAREST)


def _warp(pixels: np.ndarray, matrix: np.ndarray, crop_size: int, interpolation: int) -> np.ndarray:
    size, flags = (crop_size, crop_size), interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _identity(count: int) -> Linear:
    return np.repeat(np.eye(2)[:, :, None], count, axis=2)


def _turned(linear: Linear, angles: np.ndarray) -> Linear:
    """Matrices with the axes of the crop rotated by `angles` (radians)."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos * linear[0] - sin * linear[1], sin * linear[0] + cos * linear[1]])


def _flipped(linear: Linear, flips: np.ndarray) -> Linear:
    """Matrices with the first axis of the crop multiplied by 1 or -1."""
    return linear * np.stack([flips, np.ones_like(flips)])


def _centred(linear: Linear, centres: np.ndarray, size: int) -> Float32[np.ndarray, "crop 2 3"]:
    """Complete matrices, which map the middle of each crop to its centre."""
    linear, middle = np.ascontiguousarray(linear.transpose(2, 0, 1)), (size - 1) / 2
    shifts = centres - linear @ np.array([middle, middle])
    return np.concatenate([linear, shifts[:, :, None]], axis=2).astype(np.float32)


def _angles(uniform: np.ndarray, augment: AugmentConfig) -> np.ndarray:
    """Angles in radians: any angle, or multiples of `rotation_step` degrees."""
    if not augment.rotate:
        return np.zeros_like(uniform)
    if not augment.rotation_step:
        return 2 * np.pi * uniform
    steps = max(1, round(360 / augment.rotation_step))
    return np.deg2rad(np.floor(uniform * steps) * augment.rotation_step)
