"""Training images as canvases that stay on the devices: `data.warp=device` cuts its crops from them.

A canvas holds every pixel that a crop can reach; beyond the image's border it holds the image mirrored, so that the
device need not know where the border is. Its sides are multiples of 32 and 128: of a TPU's tile of bytes, so that the
rows of a canvas lie together in memory.
"""

import math
from collections.abc import Sequence

import cv2
import jax
import numpy as np
from jaxtyping import Float32, UInt8

from hep2jax.config import AugmentConfig, Config, DataConfig

Store = dict[str, np.ndarray]
"""Arrays by name: `pictures` uint8 [n, height, width] and, of fields, `label_maps` of the same shape."""

_SLACK = 2  # the neighbours that interpolation reads, and rounding
_HEIGHTS, _WIDTHS = 32, 128


def on_devices(data: DataConfig) -> bool:
    """Whether crops are cut on the devices: where it is asked for, and on GPUs unless it is declined."""
    return data.warp == "device" or (data.warp == "auto" and jax.default_backend() == "gpu")


def reach(crop_size: int, augment: AugmentConfig) -> int:
    """Pixels from a crop's centre to the farthest that its corners can lie, turned and zoomed."""
    return math.ceil(crop_size / math.sqrt(2) / augment.scale_min) + _SLACK


def margin(config: Config) -> int:
    """Pixels that crops of a field reach beyond its border: their centres lie at least half a crop inside."""
    return reach(config.data.crop_size, config.augment) - config.data.crop_size // 2


def with_margin(
    images: Sequence[UInt8[np.ndarray, "_ _"]], margin: int
) -> UInt8[np.ndarray, "image canvas_height canvas_width"]:
    """Canvases with `margin` pixels around each image, and below and right as much as the largest needs."""
    height, width = _sides(*(max(image.shape[axis] for image in images) + 2 * margin for axis in (0, 1)))
    return np.stack([_mirrored(image, margin, margin, height, width) for image in images])


def centred(
    images: Sequence[UInt8[np.ndarray, "_ _"]], around: int
) -> tuple[UInt8[np.ndarray, "image canvas_height canvas_width"], Float32[np.ndarray, "image 2"]]:
    """Canvases that reach `around` pixels from the images' centres, and (x, y) of each image's origin on its canvas."""
    corners = [(around - image.shape[0] // 2, around - image.shape[1] // 2) for image in images]
    sides = _sides(2 * around + 1, 2 * around + 1)
    made = [_mirrored(image, *corner, *sides) for image, corner in zip(images, corners, strict=True)]
    return np.stack(made), np.array(corners, np.float32)[:, ::-1]


def _sides(height: int, width: int) -> tuple[int, int]:
    return -(-height // _HEIGHTS) * _HEIGHTS, -(-width // _WIDTHS) * _WIDTHS


def _mirrored(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The image with `top` and `left` pixels of its mirror image before it (fewer than none: cut), and so on behind."""
    below, right = height - top - image.shape[0], width - left - image.shape[1]
    border = cv2.BORDER_REFLECT_101
    padded = cv2.copyMakeBorder(image, max(0, top), max(0, below), max(0, left), max(0, right), border)
    y, x = max(0, -top), max(0, -left)
    return padded[y : y + height, x : x + width]
