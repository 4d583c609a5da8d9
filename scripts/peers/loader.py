"""The input pipeline in PyTorch: a map-style data set that applies the augmentation in `__getitem__`, and a DataLoader.

The warp is the same as ours: the same distributions and OpenCV call, on the same decoded images in memory. Its matrix
is computed with scalars, which is faster for one example than our arrays for a batch. Examples are drawn with equal
probability, and `data.balance` is ignored.
"""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, RandomSampler  # pyright: ignore[reportMissingImports]

from hep2jax.config import AugmentConfig, Config
from hep2jax.data.sets.cells import Cell
from hep2jax.data.sets.fields import Field
from hep2jax.metrics.pixels import VOID

_ENDLESS = 10**9
_POINTS = 4096  # cell pixels that are stored per field, as in `hep2jax.data.streams.fields`


class Cells(Dataset):
    """Single cells: image, label and tone curve."""

    def __init__(self, cells: Sequence[Cell], config: Config) -> None:
        self._cells, self._size, self._augment = cells, config.data.crop_size, config.augment

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: int) -> dict[str, Any]:
        cell, size = self._cells[index], self._size
        height, width = cell.ready.shape
        max_shift = 2 * self._augment.shift * size
        x, y = (width - 1) / 2, (height - 1) / 2
        shift_x, shift_y = max_shift * (random.random() - 0.5), max_shift * (random.random() - 0.5)
        matrix = draw_matrix((x + shift_x, y + shift_y), size, self._augment)
        tone_curve = draw_tone_curve(cell.tone_curve, self._augment)
        return {
            "image": warp(cell.ready, matrix, size, cv2.INTER_LINEAR),
            "labels": cell.item.pattern,
            "tone_curve": tone_curve,
        }


class Crops(Dataset):
    """Crops of fields: image, class mask and tone curve."""

    def __init__(self, fields: Sequence[Field], config: Config) -> None:
        self._fields, self._data, self._augment = fields, config.data, config.augment
        self._points = [_cell_pixels(field) for field in fields]

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: int) -> dict[str, Any]:
        field, size = self._fields[index], self._data.crop_size
        matrix = draw_matrix(self._draw_centre(index), size, self._augment)
        plain = np.array([field.grey_offset, field.grey_gain, 1.0, 0.0], np.float32)
        return {
            "image": warp(field.working_image, matrix, size, cv2.INTER_LINEAR),
            "labels": warp(field.working_classes, matrix, size, cv2.INTER_NEAREST),
            "tone_curve": draw_tone_curve(plain, self._augment),
        }

    def _draw_centre(self, index: int) -> tuple[float, float]:
        """Draw a centre (x, y) near a cell or anywhere; the crop stays inside the field if it is large enough."""
        (height, width), size = self._fields[index].working_image.shape, self._data.crop_size
        points = self._points[index]
        x, y = random.random() * width, random.random() * height
        if random.random() < self._data.foreground_crops and len(points):
            row, column = points[random.randrange(len(points))]
            x, y = column + random.uniform(-0.25, 0.25) * size, row + random.uniform(-0.25, 0.25) * size
        return _inside(x, width, size), _inside(y, height, size)


def _inside(position: float, length: int, size: int) -> float:
    return min(max(position, size / 2), max(length - size / 2, size / 2))


def _cell_pixels(field: Field) -> list[list[int]]:
    classes = field.working_classes
    points = np.argwhere((classes > 0) & (classes != VOID))
    return points[:: max(1, len(points) // _POINTS)].tolist()


def draw_matrix(centre: tuple[float, float], size: int, augment: AugmentConfig) -> np.ndarray:
    """Draw a matrix that mirrors, rotates and zooms about `centre` (x, y), float32 [2, 3].

    See `hep2jax.data.augment.geometry`.
    """
    angle = 0.0
    if augment.rotate and augment.rotation_step:
        angle = math.radians(random.randrange(max(1, round(360 / augment.rotation_step))) * augment.rotation_step)
    elif augment.rotate:
        angle = random.uniform(0, 2 * math.pi)
    zoom = math.exp(random.uniform(math.log(augment.scale_min), math.log(augment.scale_max)))
    flip = -1.0 if augment.mirror and random.random() < 0.5 else 1.0
    return matrix(centre, size, angle=angle, zoom=zoom, flip=flip)


def matrix(centre: tuple[float, float], size: int, *, angle: float, zoom: float, flip: float) -> np.ndarray:
    """The same as `hep2jax.data.augment.geometry.cmr_matrix`, with scalars."""
    cos, sin, middle = math.cos(angle) / zoom, math.sin(angle) / zoom, (size - 1) / 2
    x, y = centre
    across, down = x - (cos * flip - sin) * middle, y - (sin * flip + cos) * middle
    return np.array([[cos * flip, -sin, across], [sin * flip, cos, down]], np.float32)


def draw_tone_curve(plain: np.ndarray, augment: AugmentConfig) -> np.ndarray:
    """Draw random gain, exponent and shift; see `hep2jax.data.augment.intensity`."""
    tone_curve = plain.copy()
    tone_curve[1] *= math.exp(augment.gain * random.uniform(-1, 1))
    tone_curve[2] *= math.exp(augment.gamma * random.uniform(-1, 1))
    tone_curve[3] += augment.offset * random.uniform(-1, 1)
    return tone_curve


def warp(image: np.ndarray, matrix: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """The warped crop of the image, which is reflected at its border."""
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def batches(examples: Cells | Crops, size: int, workers: int) -> Iterator[dict[str, Any]]:
    """Endless batches of a DataLoader with persistent workers and default collation and prefetching (two per worker).

    The workers are forked immediately, so this must be called before JAX starts its threads.
    """
    loader = DataLoader(
        examples,
        batch_size=size,
        sampler=RandomSampler(examples, replacement=True, num_samples=_ENDLESS),
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
    )
    return iter(loader)
