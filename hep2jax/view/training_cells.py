"""The training cells that look most like a cell: by measured properties of its grey levels, without the network."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from hep2jax import remote, tasks
from hep2jax.config import Config
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.tasks import CellTask, Task
from hep2jax.tasks.base import TaskOfFields
from hep2jax.training import workdir as workdirs

MAX_CELLS = 2_000
"""Training cells that are compared with; of more, so many are taken at equal intervals."""
SIDE, _DIAMETER = 64, 40.0
"""Side of the frame in which a cell is measured, and the diameter of a disc of its area there, in pixels."""
NUM_PROPERTIES = 28
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_RINGS = (-0.3, 0.0, 0.15, 0.35, 0.6, np.inf)
"""Borders of the rings about the middle, as depths below the outline in radii."""
_BLURS = (1.0, 2.0, 4.0, 8.0)
_LEAST_SIGNAL = 1.5  # grey levels: below that, noise would be the contrast
_MOST_DEVIATIONS = 5.0  # beyond them, one property would outweigh all others

Picture = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingCell:
    """An annotated cell of the training split."""

    pattern: int
    specimen: str
    """Empty if it is not known."""
    image: UInt8[np.ndarray, "side side"]
    """Its frame, see `framed`."""


class TrainingCells:
    """The cells of a training split, ready to be compared with."""

    def __init__(self, cells: Sequence[tuple[np.ndarray, np.ndarray, int, str]]) -> None:
        """Measure the cells: image, mask, pattern and specimen of each; at least one."""
        frames = [framed(image, mask) for image, mask, _, _ in cells]
        measured = np.stack([properties(*frame) for frame in frames])
        self._mean, self._deviation = measured.mean(axis=0), measured.std(axis=0) + 1e-9
        self._measured = self._standardised(measured)
        self.cells = [
            TrainingCell(pattern=pattern, specimen=specimen, image=image)
            for (image, _), (_, _, pattern, specimen) in zip(frames, cells, strict=True)
        ]

    def _standardised(self, measured: np.ndarray) -> np.ndarray:
        return np.clip((measured - self._mean) / self._deviation, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)

    def nearest(self, image: Picture, mask: Mask, count: int) -> list[tuple[float, TrainingCell]]:
        """The training cells with the nearest properties, the nearest first.

        Args:
            image: the cell with some surroundings, uint8.
            mask: true on the cell, which has at least one pixel.
            count: how many.

        Returns:
            Each with its distance: the root of the mean squared difference of the properties, in standard deviations
            over the training cells.
        """
        here = self._standardised(properties(*framed(image, mask)))
        distances = np.sqrt(((self._measured - here) ** 2).mean(axis=1))
        return [(float(distances[i]), self.cells[i]) for i in np.argsort(distances, kind="stable")[:count]]


def load(workdir: str | os.PathLike[str], config: Config, classes: Sequence[str]) -> TrainingCells:
    """The cells of the training split of a run, from the data set that is at hand here.

    Raises:
        UsageError: it is not at hand, is not what the network was trained on, or has no masks of cells.
    """
    task = tasks.load(config)
    train = protocols.partition(config.data, task.name, task.items, task.classes).train
    with remote.opened(workdir) as directory:
        known = workdirs.trained_on(directory)
    if task.classes != tuple(classes) or known not in (None, task.fingerprint(train)):
        raise UsageError(f"{task.name} is here in another state than the one that the network was trained on")
    cells = list(_of_fields(task, train) if isinstance(task, TaskOfFields) else _of_cells(task, train))
    if not cells:
        raise UsageError(f"{task.name} has no masks of cells")
    return TrainingCells(cells)


def _of_fields(task: TaskOfFields, train: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray, int, str]]:
    fields = [task.fields.fields[i] for i in train]
    annotated = [(n, label) for n, field in enumerate(fields) for label in cell_sets.of_kind(field, "cell")]
    chosen = evenly_spread(annotated, MAX_CELLS)
    for number, field in enumerate(fields):
        labels = [label for n, label in chosen if n == number]
        for cut in cell_sets.cut_out(field.image, field.instances, labels).cuts:
            yield cut.image, cut.mask, field.pattern, field.specimen_id


def _of_cells(task: Task, train: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray, int, str]]:
    if isinstance(task, CellTask):
        _, crops = cell_sets.read_crops(task.config.data)  # in the order of the task's items
        with_masks = [crops[i] for i in train if crops[i].mask.any()]
        for crop in evenly_spread(with_masks, MAX_CELLS):
            yield crop.image, crop.mask, crop.pattern, crop.specimen


def framed(image: Picture, mask: Mask) -> tuple[UInt8[np.ndarray, "side side"], Bool[np.ndarray, "side side"]]:
    """A cell and its mask in a frame of `SIDE` pixels, resized so that all cells have one area; sizes do not count."""
    factor = _DIAMETER / float(np.sqrt(4 / np.pi * np.count_nonzero(mask)))
    size = [max(1, round(length * factor)) for length in image.shape[::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    left, top, width, height = cv2.boundingRect(inside)
    y, x = top + (height + SIDE) // 2, left + (width + SIDE) // 2  # of the frame's corner in the padded image
    window = slice(y, y + SIDE), slice(x, x + SIDE)
    padded: Any = cv2.copyMakeBorder(image, SIDE, SIDE, SIDE, SIDE, cv2.BORDER_REFLECT)
    within = np.pad(inside, SIDE)[window] > 0
    return padded[window], within if within.any() else np.ones_like(within)  # a thread-like object may miss the window


def properties(
    image: UInt8[np.ndarray, "side side"], mask: Bool[np.ndarray, "side side"]
) -> Float64[np.ndarray, " property"]:
    """`NUM_PROPERTIES` numbers of a framed cell, which turning, mirroring and a linear tone curve leave as they are.

    Grey levels count from the background (the tenth percentile outside the cell), in units of the cell's mean. The
    numbers are quantiles; mean and deviation in rings of equal depth; and of four bands of spatial frequency the
    strength in the cell and in its middle, and the skewness, which tells bright spots from dark ones.
    """
    background = np.percentile(image[~mask], 10) if not mask.all() else image.min()
    relative = (image - background) / max(image[mask].mean() - background, _LEAST_SIGNAL)
    depth = _distance(mask) - _distance(~mask)
    depth /= np.sqrt(np.count_nonzero(mask) / np.pi)
    rings = [relative[(depth > low) & (depth <= high)] for low, high in zip(_RINGS[:-1], _RINGS[1:], strict=True)]
    blurred = [relative, *(cv2.GaussianBlur(relative, (0, 0), sigma) for sigma in _BLURS)]
    bands = [fine - coarse for fine, coarse in zip(blurred[:-1], blurred[1:], strict=True)]
    numbers = [
        np.quantile(relative[mask], _QUANTILES),
        *((ring.mean(), ring.std()) if ring.size else (0.0, 0.0) for ring in rings),
        *((_strength(band[mask]), _strength(band[depth > 0.25]), _skewness(band[mask])) for band in bands),
    ]
    return np.concatenate(numbers)


def _distance(mask: Mask) -> Float[np.ndarray, "height width"]:
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).astype(np.float64)


def _strength(values: Float[np.ndarray, " pixel"]) -> float:
    return float(np.log(values.std() + 1e-3)) if values.size else 0.0


def _skewness(values: Float[np.ndarray, " pixel"]) -> float:
    return float((((values - values.mean()) / (values.std() + 1e-3)) ** 3).mean())
