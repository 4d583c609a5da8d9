"""Reading fields that nobody annotated with a network of single cells: cells are found, cut out, read and counted."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.errors import UsageError
from hep2jax.specimens import classical, single_cells, voting
from hep2jax.specimens.cell_readers import NetworkReader
from hep2jax.tasks import CellTask, Reader, Reading, found_cells
from hep2jax.tasks.reading import DECIMALS, Ready, in_groups
from hep2jax.training.evaluation import Trained

DIAMETERS = (4.0, 2000.0)
"""The nuclear diameters that can be meant, in pixels."""
SIZES = (0.25, 4.0)
"""The areas of objects that are read as cells, in areas of a nucleus: those of half to twice its diameter. Others are
specks, or clumps that the watershed did not separate. `single_cells.CellSystem` takes its bounds from the annotated
cells, which a work directory does not hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FieldOutput:
    """The cells of one field that were read."""

    labels: Int[np.ndarray, "height width"]
    """Their label map; objects that were not read are background."""
    scores: Float[np.ndarray, "cell pattern"]
    rows: Float[np.ndarray, "label pattern"]
    """The scores of each label; zeros for those that are not in the map."""


class FieldsByCells(Reader):
    """Reads fields by their cells, and specimens by the most frequent pattern of the cells of all their fields.

    Cells are found by `single_cells.find_by_threshold`, or by a network of fields and a watershed, and then treated as
    `single_cells.CellSystem` does. Cells that touch the frame are not read.
    """

    finds_cells = True

    def __init__(self, trained: Trained, nuclear_diameter: float, segmenter: Reader | None = None) -> None:
        """Make a reader.

        Args:
            trained: the network of cells.
            nuclear_diameter: in pixels of the images.
            segmenter: a reader whose readings have masks; it takes the channel that the network of cells takes.

        Raises:
            UsageError: the network is none of cells, the segmenter makes no masks, or the diameter is out of range.
        """
        kind = tasks.kind(trained.config)
        if not issubclass(kind, CellTask):
            raise UsageError(
                f"--fields: is for networks of single cells; {trained.config.model.name} reads fields itself"
            )
        if segmenter is not None and not segmenter.finds_cells:
            raise UsageError(f"--segmenter: {segmenter.config.model.name} makes no masks of cells")
        if not DIAMETERS[0] <= nuclear_diameter <= DIAMETERS[1]:
            raise UsageError(f"--nuclear_diameter={nuclear_diameter:g}: must be 4 to 2000 pixels")
        self.config, self.classes = trained.config, trained.classes
        evaluator = kind.evaluator_class(trained.config, trained.network, meshes.make_mesh())
        self._cells = NetworkReader(evaluator=evaluator, parameters=trained.parameters)
        self._diameter, self._segmenter = nuclear_diameter, segmenter

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        for group in in_groups(images, lambda given: given.image.size):
            yield from self._read_fields(group)

    def _read_fields(self, fields: Sequence[Ready]) -> list[_FieldOutput]:
        instances = self._find(fields)
        area = math.pi / 4 * self._diameter**2
        bounds = [share * area for share in SIZES]
        found = [
            single_cells.cut_cells(field.image, labels, *bounds).cuts
            for field, labels in zip(fields, instances, strict=True)
        ]
        cuts = [cut for field in found for cut in field]
        scores = np.zeros((0, len(self.classes)))
        if cuts:  # those of all fields at once, so that batches are full
            scores = np.asarray(single_cells.read_cuts(cuts, self._cells, self.config.data), np.float64)
        parts = np.split(scores, np.cumsum([len(field) for field in found])[:-1])
        numbers = [[cut.number for cut in field] for field in found]
        return [_output(*field) for field in zip(instances, numbers, parts, strict=True)]

    def _find(self, fields: Sequence[Ready]) -> list[np.ndarray]:
        """The label map of the objects in each field."""
        if self._segmenter is None:
            return [single_cells.find_by_threshold(field.image, self._diameter) for field in fields]
        readings = self._segmenter.read([field.image for field in fields])
        return [classical.split_touching(reading.cell_masks[0], self._diameter) for reading in readings]

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        scores = np.concatenate([field.scores for field in outputs])
        patterns, shares = (), np.zeros(len(self.classes))
        if len(scores):
            result = voting.read_specimens(scores, [""] * len(scores), voting.by_prevalence).readings[0]
            patterns, shares = (self.classes[result.pattern],), result.scores
        return Reading(
            patterns=patterns,
            probabilities=self._by_pattern(shares),
            class_masks=tuple(_class_mask(field) for field in outputs),
            cells=tuple(found_cells.by_votes(field.labels, field.rows, self.classes) for field in outputs),
            cell_labels=tuple(field.labels for field in outputs),
        )

    @override
    def row(self, reading: Reading) -> dict[str, Any]:
        """The common columns, the share of the cells, their number, the share of cell pixels and of each pattern."""
        return super().row(reading) | {
            "share": round(max(reading.probabilities.values()), DECIMALS),
            "num_cells": reading.num_cells,
            "foreground": round(reading.foreground, DECIMALS),
            **reading.rounded,
        }


def _output(instances: np.ndarray, numbers: Sequence[int], scores: np.ndarray) -> _FieldOutput:
    rows = np.zeros((int(instances.max(initial=0)) + 1, scores.shape[1]))
    rows[list(numbers)] = scores
    read = rows.max(axis=1) > 0
    return _FieldOutput(labels=np.where(read[instances], instances, 0).astype(np.int32), scores=scores, rows=rows)


def _class_mask(field: _FieldOutput) -> np.ndarray:
    values = np.where(field.rows.max(axis=1) > 0, field.rows.argmax(axis=1) + 1, 0).astype(np.uint8)
    return values[field.labels]
