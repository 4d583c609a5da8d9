"""Reading single cells: a pattern for each cell, and for each specimen the one that prevails among its cells."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import metrics, report
from hep2jax.config import Config
from hep2jax.data.sets.cells import CellSet
from hep2jax.data.streams import cells as cell_stream
from hep2jax.data.streams import feeding
from hep2jax.data.streams.stream import Stream
from hep2jax.specimens import voting
from hep2jax.tasks.base import Parameters, Task
from hep2jax.tasks.words import figure
from hep2jax.training import steps
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one cell adds to every figure."""

    identifier: str
    specimen: str
    intensity: str
    truth: int
    probabilities: Float32[np.ndarray, " pattern"]
    group: str = ""
    """One name for specimens that repeat each other (see `Item.group`); empty: the specimen stands alone."""

    @property
    def unit(self) -> str:
        """What counts as one specimen."""
        return self.group or self.specimen

    @property
    def prediction(self) -> int:
        """The most probable pattern, the first of equals."""
        return int(self.probabilities.argmax())


class CellEvaluator:
    """A network's compiled forward pass over cells."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._config = config
        self._mesh = mesh
        predict = steps.make_predict_step(network, dihedral=config.evaluation.dihedral)
        self._predict = jax.jit(predict, out_shardings=meshes.replicated(mesh))

    def predict(
        self, parameters: Parameters, images: Sequence[np.ndarray], greys: Sequence[np.ndarray]
    ) -> Float32[np.ndarray, "cell pattern"]:
        """Probabilities of each pattern, in order.

        Args:
            parameters: (params, batch_stats).
            images: ready pictures, uint8 (see `cells.make_ready`).
            greys: their grey-level maps, float32 [4].
        """
        size, side = self._config.evaluation.batch_size, self._config.data.crop_size
        batches = cell_stream.plain_batches(images, greys, size=size, side=side, mesh=self._mesh)
        outputs = (self._predict(*parameters, batch["image"], batch["greys"]) for batch in batches)
        return np.concatenate(list(feeding.fetched(outputs)))[: len(images)]


class _SetEvaluator:
    """The evaluator of one data set's cells."""

    def __init__(self, cells: CellSet, forward: CellEvaluator) -> None:
        self._cells = cells
        self._forward = forward

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[CellResult]:
        """Results of the chosen cells, in order."""
        chosen = [self._cells.cells[i] for i in indices]
        probabilities = self._forward.predict(parameters, [c.ready for c in chosen], [c.greys for c in chosen])
        return [
            CellResult(
                identifier=cell.item.identifier,
                specimen=cell.item.specimen,
                group=cell.item.group,
                intensity=cell.intensity,
                truth=cell.item.pattern,
                probabilities=row,
            )
            for cell, row in zip(chosen, probabilities, strict=True)
        ]


class CellTask(Task[CellResult]):
    """A set of single cells, read for a classifier."""

    def __init__(self, config: Config, cells: CellSet) -> None:
        self.config = config
        self.cells = cells
        self.name, self.classes, self.items = cells.name, cells.classes, cells.items
        self.examples = cells.cells
        self.num_outputs = len(cells.classes)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(cell_stream.CellPlan(self.config, self.cells, indices), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> _SetEvaluator:
        return _SetEvaluator(self.cells, CellEvaluator(self.config, network, mesh))

    @override
    def figures(self, results: Sequence[CellResult], protocol: str, leakage: bool) -> dict[str, Any]:
        """Of the cells on top, then of the `specimen`s; specimens that repeat each other count as one, with all cells.

        `repeated_specimens` lists those, together.
        """
        known = all(row.specimen for row in results)
        truth, read = [row.truth for row in results], [row.prediction for row in results]
        groups = [row.unit if known else row.identifier for row in results]
        figures = self._classification(truth, read, groups) | {
            "examples": "cell",
            "protocol": protocol,
            "specimen_leakage": leakage,
        }
        if not known:
            return figures | {"num_specimens": None}
        specimens = _by_specimen(results)
        votes = [prevalent(rows) for rows in specimens.values()]
        whole = self._classification([rows[0].truth for rows in specimens.values()], votes, list(specimens))
        table = [self._specimen_row(rows, vote) for rows, vote in zip(specimens.values(), votes, strict=True)]
        named = [sorted({row.specimen for row in rows}) for rows in specimens.values()]
        repeated = [names for names in named if len(names) > 1]
        return figures | {"specimen": whole, "specimens": table, "repeated_specimens": repeated}

    def _classification(self, truth: list[int], read: list[int], groups: list[str]) -> dict[str, Any]:
        return metrics.classification_report(truth, read, groups, self.classes)

    def _specimen_row(self, rows: Sequence[CellResult], vote: int) -> dict[str, Any]:
        return {
            "specimen": rows[0].unit,
            "pattern": self.classes[rows[0].truth],
            "prediction": self.classes[vote],
            "num_cells": len(rows),
            "right": sum(row.prediction == row.truth for row in rows),
        }

    @override
    def summary(self, figures: dict[str, Any]) -> dict[str, float]:
        flat = {"aca": figures["aca"], "mca": figures["mca"]}
        if "specimen" in figures:
            flat |= {"specimen_aca": figures["specimen"]["aca"], "specimen_mca": figures["specimen"]["mca"]}
        return {name: value for name, value in flat.items() if value is not None}

    @override
    def score(self, figures: dict[str, Any]) -> float:
        return figures["mca"]

    @override
    def describe(self, side: str, figures: dict[str, Any]) -> str:
        line = f"{side}: {figures['num_examples']} cells: ACA {figure(figures, 'aca')}, MCA {figure(figures, 'mca')}"
        whole = figures.get("specimen")
        if not whole:
            return line
        return f"{line}; {whole['num_specimens']} specimens: ACA {figure(whole, 'aca')}, MCA {figure(whole, 'mca')}"

    @override
    def details(self, figures: dict[str, Any]) -> list[str]:
        """The recall of each pattern and, of the specimens, how many were read rightly."""
        recalls = ((name, row["recall"], row["support"]) for name, row in figures["per_class"].items())
        lines = ["recall: " + ", ".join(f"{name} {recall:.3f}" for name, recall, support in recalls if support)]
        if "specimens" in figures:
            right = sum(row["pattern"] == row["prediction"] for row in figures["specimens"])
            lines.append(f"specimens by the prevalence of their cells: {right} of {len(figures['specimens'])} right")
            lines += [f"counted as one specimen: {', '.join(names)}" for names in figures["repeated_specimens"]]
        return lines

    @override
    def to_record(self, result: CellResult) -> dict[str, Any]:
        probabilities = [round(float(p), 6) for p in result.probabilities]
        return dataclasses.asdict(result) | {"probabilities": probabilities}

    @override
    def from_record(self, record: dict[str, Any]) -> CellResult:
        values: dict[str, Any] = record | {"probabilities": np.array(record["probabilities"], np.float32)}
        return CellResult(**values)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[CellResult]) -> list[report.CellItem]:
        """Up to `gallery_specimens` cells of each pattern: the surest errors first, then right ones, evenly spread."""
        limit = self.config.evaluation.gallery_specimens
        items = []
        for pattern in range(len(self.classes)):
            rows = [(i, row) for i, row in zip(indices, results, strict=True) if row.truth == pattern]
            errors = sorted((p for p in rows if p[1].prediction != pattern), key=lambda p: -p[1].probabilities.max())
            errors = errors[: limit * 2 // 3]
            right = [pair for pair in rows if pair[1].prediction == pattern]
            spread = np.linspace(0, len(right) - 1, min(limit - len(errors), len(right))).round().astype(int)
            items += [self._gallery_item(i, row) for i, row in [*errors, *(right[k] for k in spread)]]
        return items

    def _gallery_item(self, index: int, row: CellResult) -> report.CellItem:
        return report.CellItem(
            identifier=row.identifier,
            specimen_id=row.specimen,
            intensity=row.intensity,
            truth=self.classes[row.truth],
            prediction=self.classes[row.prediction],
            probability=float(row.probabilities.max()),
            image=self.cells.cells[index].image,
        )


def prevalent(rows: Sequence[CellResult]) -> int:
    """The pattern of most cells (Cascio, Taormina, Raso 2019); ties by the mean probability of the tied patterns."""
    counts = np.bincount([row.prediction for row in rows], minlength=len(rows[0].probabilities))
    return voting.prevalent(counts, np.mean([row.probabilities for row in rows], axis=0))


def _by_specimen(results: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    groups: dict[str, list[CellResult]] = {}
    for result in results:
        groups.setdefault(result.unit, []).append(result)
    return groups
