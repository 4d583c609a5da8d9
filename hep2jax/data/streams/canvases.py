"""Training images as canvases that stay in device memory; with `data.warp=device`, crops are cut from them.

A canvas holds every pixel that a crop can reach. Beyond the border of the image it holds the mirrored image, so that
the device does not need to know where the border is. Its height and width are multiples of 32 and 128, the tile of
bytes on a TPU, so that the rows of a canvas are contiguous in memory.
"""

import math
from collections.abc import Sequence

import cv2
import jax
import numpy as np
from jaxtyping import Float32, UInt8

from hep2jax.config import AugmentConfig, Config, DataConfig

Store = dict[str, np.ndarray]
"""Arrays by name: `pictures` uint8 [n, height, width]; of the same shape `label_maps`, for fields, or `depths`, for
frames of cells."""

_SLACK = 2  # for the neighbours that interpolation reads, and for rounding
_HEIGHTS, _WIDTHS = 32, 128


def on_devices(data: DataConfig, platform: str | None = None) -> bool:
    """Whether crops are cut on the devices (`data.warp`) of a platform: cpu, gpu or tpu; None: that of this process."""
    return data.warp == "device" or (data.warp == "auto" and (platform or jax.default_backend()) != "cpu")


def reach(crop_size: int, augment: AugmentConfig) -> int:
    """Greatest distance in pixels from the centre of a crop to its corners, after rotation and zoom."""
    return math.ceil(crop_size / math.sqrt(2) / augment.scale_min) + _SLACK


def margin(config: Config) -> int:
    """Pixels by which crops of a field can reach beyond its border; their centres are at least half a crop inside."""
    return reach(config.data.crop_size, config.augment) - config.data.crop_size // 2


def with_margin(
    images: Sequence[UInt8[np.ndarray, "_ _"]], margin: int
) -> UInt8[np.ndarray, "image canvas_height canvas_width"]:
    """Canvases with `margin` pixels around each image; all have the size that the largest image needs."""
    height, width = _canvas_shape(*(max(image.shape[axis] for image in images) + 2 * margin for axis in (0, 1)))
    return np.stack([_mirrored(image, margin, margin, height, width) for image in images])


def centred(
    images: Sequence[UInt8[np.ndarray, "_ _ *channel"]], around: int
) -> tuple[UInt8[np.ndarray, "image canvas_height canvas_width *channel"], Float32[np.ndarray, "image 2"]]:
    """Canvases that reach `around` pixels from the images' centres, and (x, y) of each image's origin on its canvas."""
    corners = [(around - image.shape[0] // 2, around - image.shape[1] // 2) for image in images]
    shape = _canvas_shape(2 * around + 1, 2 * around + 1)
    canvases = [_mirrored(image, *corner, *shape) for image, corner in zip(images, corners, strict=True)]
    return np.stack(canvases), np.array(corners, np.float32)[:, ::-1]


def _canvas_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples of `_HEIGHTS` and `_WIDTHS`."""
    return -(-height // _HEIGHTS) * _HEIGHTS, -(-width // _WIDTHS) * _WIDTHS


def _mirrored(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A canvas of `height` x `width` with the image at (`top`, `left`), continued by its mirror image.

    Where `top` or `left` is negative, the image is cropped.
    """
    below, right = height - top - image.shape[0], width - left - image.shape[1]
    border = cv2.BORDER_REFLECT_101
    padded = cv2.copyMakeBorder(image, max(0, top), max(0, below), max(0, left), max(0, right), border)
    y, x = max(0, -top), max(0, -left)
    return padded[y : y + height, x : x + width]
