"""The patterns of fields by their cells: cells that were found in a field are cut out and read one by one."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from hep2jax.config import Config
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets.cells import Cut
from hep2jax.tasks.cells import CutCell, Scores
from hep2jax.tasks.mean import TrainedCells, open_trained

SIZES = (0.25, 4.0)
"""The areas of objects that are read as cells, in areas of a nucleus: those of half to twice its diameter. Others are
specks, or clumps that the watershed did not separate. `single_cells.CellSystem` takes its bounds from the annotated
cells, which a work directory does not hold."""

ReadCells = Callable[[Sequence[CutCell]], Scores]
"""Scores of at least one cell, in order."""
Segmented = tuple[np.ndarray, Integer[np.ndarray, "height width"]]
"""A field, uint8 [height, width], and the label map of what was found in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellScores:
    """The cells of one field that were read."""

    labels: Int[np.ndarray, "height width"]
    """Their label map; objects that were not read are background."""
    scores: Scores
    rows: Float[np.ndarray, "label pattern"]
    """The scores of each label; zeros for those that are not in the map."""

    @property
    def patterns(self) -> Int[np.ndarray, "height width"]:
        """1 + the most probable pattern on the cells, 0 elsewhere."""
        return np.where(self.rows.max(axis=1) > 0, self.rows.argmax(axis=1) + 1, 0)[self.labels]


class CellPatterns:
    """A trained reader of single cells that reads the cells of fields.

    Attributes:
        classes: its patterns.
    """

    def __init__(self, classes: Sequence[str], read: ReadCells, nuclear_diameter: float) -> None:
        """The diameter is that of the nuclei, in pixels of the fields."""
        self.classes, self._read = tuple(classes), read
        low, high = (share * math.pi / 4 * nuclear_diameter**2 for share in SIZES)
        self._bounds = low, high

    def read(self, fields: Sequence[Segmented]) -> list[CellScores]:
        """The cells of each field, in order. Objects that touch the frame or have no cell's size are not read."""
        found = [cut_cells(image, labels, *self._bounds).cuts for image, labels in fields]
        cuts = [cut for field in found for cut in field]
        scores = np.zeros((0, len(self.classes)))
        if cuts:  # those of all fields at once, so that batches are full
            scores = np.asarray(self._read(cuts), np.float64)
        parts = np.split(scores, np.cumsum([len(field) for field in found])[:-1])
        numbers = [[cut.number for cut in field] for field in found]
        maps = [labels for _, labels in fields]
        return [_scores(*field) for field in zip(maps, numbers, parts, strict=True)]


def _scores(instances: np.ndarray, numbers: Sequence[int], scores: np.ndarray) -> CellScores:
    rows = np.zeros((int(instances.max(initial=0)) + 1, scores.shape[1]))
    rows[list(numbers)] = scores
    read = rows.max(axis=1) > 0
    return CellScores(labels=np.where(read[instances], instances, 0).astype(np.int32), scores=scores, rows=rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldCells:
    """The cells of a field, and the numbers of objects that are not used."""

    cuts: tuple[Cut, ...]
    mitotic: Bool[np.ndarray, " cuts"]
    num_cut_by_frame: int
    num_wrong_size: int


def cut_cells(
    image: np.ndarray, instances: Integer[np.ndarray, "height width"], smallest: float, largest: float
) -> FieldCells:
    """Cut found cells out of a field: those off its frame with `smallest` to `largest` pixels."""
    cut_outs = cell_sets.cut_out(image, instances)
    cell_sized = tuple(cut for cut in cut_outs.cuts if smallest <= int(np.count_nonzero(cut.mask)) <= largest)
    return FieldCells(
        cuts=cell_sized,
        mitotic=np.zeros(len(cell_sized), bool),
        num_cut_by_frame=cut_outs.num_cut_by_frame,
        num_wrong_size=len(cut_outs.cuts) - len(cell_sized),
    )


def open_named(config: Config, mesh: jax.sharding.Mesh) -> TrainedCells | None:
    """The reader of cells that `evaluation.cell_reader` names; None if it names none.

    Raises:
        UsageError: as for `mean.open_trained`.
    """
    directory = config.evaluation.cell_reader
    return open_trained(directory, "evaluation.cell_reader", config.data, mesh) if directory else None
