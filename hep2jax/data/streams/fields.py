"""The training stream: a batch is a pure function of (seed, step).

The position of the pipeline is the step number, so a restart continues bit for bit, and each process makes the rows
of the same global batch that its devices hold (see `mesh.local_rows`).
"""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float64

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.augment.intensity import jitter_greys
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams import canvases
from hep2jax.data.streams.sampling import Sampler
from hep2jax.errors import UsageError
from hep2jax.metrics.pixels import VOID

Batch = dict[str, np.ndarray]

_MAX_FOREGROUND_POINTS = 4096  # a field's sample of cell pixels that crops are centred on; bounds the memory
_FREQUENCY_CROPS = 2048  # of 48 fields with eight patterns, shares of single patterns are then off by some 3 %


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One example before any pixel is touched."""

    field: int
    matrix: np.ndarray
    """[2, 3] crop to image, see `geometry`."""
    greys: np.ndarray
    """[4] float32: grey offset, gain, exponent, shift; see `steps.normalise`."""


class FieldStream:
    """Makes batches: `stream.batch(step)` has

    image    uint8   [rows, crop, crop]
    labels   uint8   [rows, crop, crop]   0 background, 1+i pattern, 255 void
    greys    float32 [rows, 4]            grey-level map of each example

    for the rows of this process. With `data.warp=device` there are, instead of image and labels,

    index    int32   [rows]               which picture and label map of `store`
    warp     float32 [rows, 2, 3]         crop (x, y, 1) → (x, y) of that picture

    Raises UsageError where an image is smaller than the crop.
    """

    def __init__(
        self, config: Config, fields: FieldSet, indices: Sequence[int], *, rows: meshes.Rows = meshes.ALL_ROWS
    ) -> None:
        self._config = config
        self._fields = [fields.fields[i] for i in indices]
        self._num_patterns = len(fields.classes)
        self._rows = np.arange(config.train.global_batch_size)[rows]
        if not self._fields:
            raise UsageError(f"{fields.name}: no field to train on under data.protocol={config.data.protocol}")
        for field in self._fields:
            check_size(field.name, field.working_image, config.data.crop_size)
        self._points = [_foreground_points(field) for field in self._fields]
        self._sampler = Sampler([fields.items[i] for i in indices], config.data.balance, config.seed)
        # Crops' centres lie at least half a crop from the border where the image is large enough.
        self._margin = canvases.reach(config.data.crop_size, config.augment) - config.data.crop_size // 2
        self._store = self._make_store() if canvases.on_devices(config.data) else {}

    @property
    def store(self) -> canvases.Store:
        """Arrays that the devices keep; empty where crops are made on the host."""
        return self._store

    def _make_store(self) -> canvases.Store:
        images = [field.working_image for field in self._fields]
        return canvases.of_fields(images, [field.working_classes for field in self._fields], self._margin)

    def batch(self, step: int) -> Batch:
        """The rows of this process in the batch of `step`."""
        return self._make(self._draw_rows(step))

    def _make(self, rows: Sequence[Row]) -> Batch:
        greys = np.stack([row.greys for row in rows])
        if self._store:
            matrices = np.stack([row.matrix for row in rows])
            matrices[:, :, 2] += self._margin
            return {"index": np.array([row.field for row in rows], np.int32), "warp": matrices, "greys": greys}
        crops = [self._warp(row, self._config.data.crop_size) for row in rows]
        return {
            "image": np.stack([image for image, _ in crops]),
            "labels": np.stack([labels for _, labels in crops]),
            "greys": greys,
        }

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        return grain.MapDataset.range(first_step, num_steps).map(self.batch)

    def frequencies(self) -> Float64[np.ndarray, " output"]:
        """Share of each class (0 background, 1+i pattern) in the pixels of the crops that are not void.

        Estimated from `_FREQUENCY_CROPS` crops or more, drawn as batches draw them, equally many of each field and
        counted as often as the sampler takes the field. A class that none of them shows has its share of the fields.
        """
        rng, size = np.random.default_rng(self._config.seed), self._config.data.crop_size
        repeats = -(-_FREQUENCY_CROPS // len(self._fields))
        crops, whole = np.zeros(self._num_patterns + 1), np.zeros(self._num_patterns + 1)
        for index, (field, share) in enumerate(zip(self._fields, self._sampler.shares, strict=True)):
            whole += share * _class_shares(field.working_classes, len(whole))
            for _ in range(repeats):
                labels = geometry.warp_classes(field.working_classes, self._draw(rng, index).matrix, size)
                crops += share / repeats * _class_shares(labels, len(crops))
        found = np.where(crops > 0, crops, whole)
        return found / found.sum()

    def _draw_rows(self, step: int) -> list[Row]:
        rng = np.random.default_rng((self._config.seed, step))
        count = self._config.train.global_batch_size
        chosen = self._sampler.draw(rng, step * count, count)
        drawn = [self._draw(rng, int(index)) for index in chosen]
        return [drawn[row] for row in self._rows]

    def _draw(self, rng: np.random.Generator, index: int) -> Row:
        field = self._fields[index]
        centre = self._draw_centre(rng, field, self._points[index])
        matrix = geometry.sample_cmr(rng, centre, self._config.data.crop_size, self._config.augment)
        return Row(field=index, matrix=matrix, greys=self._draw_greys(rng, field))

    def _draw_centre(self, rng: np.random.Generator, field: Field, points: np.ndarray) -> tuple[float, float]:
        """On a cell (shifted by up to a quarter crop) or anywhere; the crop stays inside where it can."""
        shape = np.array(field.working_image.shape, float)
        size = self._config.data.crop_size
        on_cell, pick = rng.uniform() < self._config.data.foreground_crops, rng.uniform()
        place, jitter = rng.uniform(size=2), rng.uniform(-0.25, 0.25, size=2)
        centre = place * shape
        if on_cell and len(points):
            centre = points[int(pick * len(points))] + jitter * size
        centre = np.clip(centre, size / 2, np.maximum(shape - size / 2, size / 2))
        return float(centre[0]), float(centre[1])

    def _draw_greys(self, rng: np.random.Generator, field: Field) -> np.ndarray:
        plain = np.array([field.grey_offset, field.grey_gain, 1.0, 0.0])
        return jitter_greys(rng.uniform(-1, 1, size=3), plain, self._config.augment)

    def _warp(self, row: Row, size: int) -> tuple[np.ndarray, np.ndarray]:
        field = self._fields[row.field]
        return geometry.warp_host(field.working_image, field.working_classes, row.matrix, size)


def _class_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class as shares of all pixels, void ones too."""
    return np.bincount(labels.ravel(), minlength=VOID + 1)[:num_classes] / labels.size


def check_size(name: str, image: np.ndarray, crop_size: int) -> None:
    """UsageError, which names it, where the image at working resolution is smaller than a crop."""
    height, width = image.shape
    if min(height, width) < crop_size:
        raise UsageError(
            f"{name}: {width}x{height} pixels at working resolution is smaller than data.crop_size={crop_size}; "
            "take a smaller crop or a larger data.scale"
        )


def _foreground_points(field: Field) -> np.ndarray:
    """An even sample of the cell pixels' (y, x), int [n, 2]; empty for a field without cells."""
    classes = field.working_classes
    points = np.argwhere((classes > 0) & (classes != VOID))
    step = max(1, len(points) // _MAX_FOREGROUND_POINTS)
    return points[::step]
