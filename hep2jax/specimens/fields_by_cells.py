"""Reading fields that nobody annotated with a network of single cells: cells are found, cut out, read and counted."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.errors import UsageError
from hep2jax.specimens import classical, single_cells, voting
from hep2jax.tasks import CellTask, Reader, Reading, found_cells
from hep2jax.tasks.cell_patterns import CellPatterns
from hep2jax.tasks.reading import DECIMALS, Ready, in_groups
from hep2jax.training.evaluation import Trained

DIAMETERS = (4.0, 2000.0)
"""The nuclear diameters that can be meant, in pixels."""


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
        read = functools.partial(evaluator.read, trained.parameters)
        self._cells = CellPatterns(trained.classes, read, nuclear_diameter)
        self._diameter, self._segmenter = nuclear_diameter, segmenter

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        for group in in_groups(images, lambda given: given.image.size):
            fields = [given.image for given in group]
            yield from self._cells.read(list(zip(fields, self._find(fields), strict=True)))

    def _find(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The label map of the objects in each field."""
        if self._segmenter is None:
            return [single_cells.find_by_threshold(image, self._diameter) for image in images]
        readings = self._segmenter.read(images)
        return [classical.separate(reading.cell_masks[0], self._diameter) for reading in readings]

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
            class_masks=tuple(field.patterns.astype(np.uint8) for field in outputs),
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
