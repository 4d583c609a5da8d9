"""Reading whole fields: overlapping tiles, native resolution, counts first and one division last."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import metrics, report
from hep2jax.config import Config, EvaluationConfig
from hep2jax.data import tiles
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.fields import VOID, FieldSet
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics import ImageScore
from hep2jax.specimens import classical, voting
from hep2jax.tasks import field_results
from hep2jax.tasks.base import Parameters, Task
from hep2jax.tasks.field_results import FieldResult, by_specimen, vote
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldReading:
    """What a network says of one field, at native resolution."""

    foreground: Bool[np.ndarray, "height width"]
    """What counts as cell, see `counted_cells`."""
    cells: Int[np.ndarray, "height width"] | None
    """The map of its single cells; None where the nuclear diameter is unknown."""
    pattern: Int[np.ndarray, "height width"]
    """0 to patterns - 1; meaningful on the foreground."""
    votes: Int[np.ndarray, " patterns"]
    """int64, foreground pixels by pattern."""


class FieldEvaluator:
    """A network's compiled forward pass over tiles, and the figures of fields under it."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._config = config
        self._reader = TileReader(config, network, mesh)

    def predict(
        self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]], shapes: Sequence
    ) -> Iterator[np.ndarray]:
        """Blended probabilities float32 [h, w, K+1] of each working image, in order.

        Args:
            parameters: (params, batch_stats).
            images: (uint8 [h, w], greys float32 [4]) pairs, see `steps.normalise`.
            shapes: (h, w) of each of them.
        """
        blender = tiles.Blender(self._config.evaluation.tile_size, self._config.evaluation.tile_overlap)
        for tile, pixels in self._reader.read(parameters, images):
            blended = blender.add(tile, pixels, shapes[tile.image])
            if blended is not None:
                yield blended

    def read_pixels(self, parameters: Parameters, fields: Sequence[field_sets.Field]) -> Iterator[FieldReading]:
        """What the network says of each field, in order: for evaluation, prediction and systems alike."""
        images = ((field.working_image, plain_greys(field)) for field in fields)
        predictions = self.predict(parameters, images, [field.working_image.shape for field in fields])
        for field, working in zip(fields, predictions, strict=True):
            yield decide(to_native(working, field.image.shape), self._config.evaluation)

    def measure_fields(self, parameters: Parameters, fields: FieldSet, indices: Sequence[int]) -> list[FieldResult]:
        """Results of the chosen fields, in order."""
        chosen = [fields.fields[i] for i in indices]
        readings = self.read_pixels(parameters, chosen)
        return [self._measure_field(f, r, fields) for f, r in zip(chosen, readings, strict=True)]

    def _measure_field(self, field: field_sets.Field, reading: FieldReading, fields: FieldSet) -> FieldResult:
        predicted = np.where(reading.foreground, reading.pattern + 1, 0).astype(np.uint8)
        valid = field.classes != VOID
        return FieldResult(
            number=field.number,
            truth=field.pattern,
            intensity=field.intensity,
            score=self._score(field, fields, reading.foreground, reading.cells),
            baselines=self._baselines(field, fields),
            votes=reading.votes,
            class_counts=metrics.count_classes(predicted, field.classes, valid, len(fields.classes)),
            predicted=predicted,
        )

    def _score(
        self, field: field_sets.Field, fields: FieldSet, foreground: np.ndarray, cells: np.ndarray | None
    ) -> ImageScore:
        valid = field.classes != VOID
        return metrics.score_image(
            field.specimen_id,
            fields.classes[field.pattern],
            foreground,
            (field.classes > 0) & valid,
            np.where(valid, field.instances, 0).astype(np.int32),
            valid,
            min_pixels=self._config.evaluation.min_object_pixels,
            predicted_instances=cells,
        )

    def _baselines(self, field: field_sets.Field, fields: FieldSet) -> dict[str, ImageScore]:
        options = self._config.evaluation
        scores = {}
        for name in classical.VARIANTS if options.baselines else ():
            cells = classical.segment(field.image, variant=name, nuclear_diameter=options.nuclear_diameter)
            cells = classical.drop_cut_cells(cells, options.nuclear_diameter) if options.drop_cut_cells else cells
            scores[name] = self._score(field, fields, cells > 0, cells)
        return scores


def decide(probabilities: Float[np.ndarray, "height width classes"], options: EvaluationConfig) -> FieldReading:
    """What the probabilities of a field's pixels say (see `voting.decide`), only cells that count."""
    foreground, pattern = voting.decide(probabilities, options.foreground_threshold)
    foreground, cells = counted_cells(foreground, options)
    votes = voting.pattern_counts(foreground, pattern, probabilities.shape[-1] - 1)
    return FieldReading(foreground=foreground, cells=cells, pattern=pattern, votes=votes)


def counted_cells(foreground: np.ndarray, options: EvaluationConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """The foreground that counts and its single cells; no cells where the nuclear diameter is unknown."""
    if not options.nuclear_diameter:
        return foreground, None
    cells = classical.split_touching(foreground, options.nuclear_diameter)
    if options.drop_cut_cells:
        cells = classical.drop_cut_cells(cells, options.nuclear_diameter)
    return cells > 0, cells


def plain_greys(field: field_sets.Field) -> np.ndarray:
    """The grey-level map of a field without augmentation, float32 [4]."""
    return np.array([field.grey_offset, field.grey_gain, 1.0, 0.0], np.float32)


def to_native(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities [h, w, K+1] interpolated bilinearly to `shape`."""
    if probabilities.shape[:2] == shape:
        return probabilities
    return cv2.resize(probabilities, shape[::-1], interpolation=cv2.INTER_LINEAR)


class _SetEvaluator:
    """The evaluator of one data set's fields."""

    def __init__(self, fields: FieldSet, forward: FieldEvaluator) -> None:
        self._fields = fields
        self._forward = forward

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[FieldResult]:
        """Results of the chosen fields, in order."""
        return self._forward.measure_fields(parameters, self._fields, indices)


class FieldTask(Task[FieldResult]):
    """A set of whole fields, read for a segmenter; the first output channel is background."""

    def __init__(self, config: Config, fields: FieldSet) -> None:
        self.config = config
        self.fields = fields
        self.name, self.classes, self.items = fields.name, fields.classes, fields.items
        self.examples = fields.fields
        self.num_outputs = len(fields.classes) + 1

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(FieldPlan(self.config, self.fields, indices), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> _SetEvaluator:
        return _SetEvaluator(self.fields, FieldEvaluator(self.config, network, mesh))

    @override
    def figures(self, results: Sequence[FieldResult], protocol: str, leakage: bool) -> dict[str, Any]:
        return field_results.side_metrics(self.classes, results, protocol, leakage)

    @override
    def summary(self, figures: dict[str, Any]) -> dict[str, float]:
        return field_results.summary(figures)

    @override
    def score(self, figures: dict[str, Any]) -> float:
        """The mean of foreground Dice and MCA of the specimens."""
        return (figures["pixel"]["Dice"] + figures["specimen"]["mca"]) / 2

    @override
    def describe(self, side: str, figures: dict[str, Any]) -> str:
        return field_results.describe_side(side, figures)

    @override
    def details(self, figures: dict[str, Any]) -> list[str]:
        """Every pixel figure of the baselines and of the network."""
        measured = {**figures.get("baselines", {}), self.config.model.name: figures}
        return [field_results.describe_pixels(name, part["pixel"]) for name, part in measured.items()]

    @override
    def to_record(self, result: FieldResult) -> dict[str, Any]:
        return field_results.to_record(result)

    @override
    def from_record(self, record: dict[str, Any]) -> FieldResult:
        return field_results.from_record(record)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[FieldResult]) -> list[report.GalleryItem]:
        """Pictures of the first field of up to `gallery_specimens` specimens, spread evenly over the side."""
        groups = by_specimen(results)
        first = {}
        for index, result in zip(indices, results, strict=True):
            first.setdefault(result.score.specimen, (index, result))
        pairs = list(first.values())
        count = min(self.config.evaluation.gallery_specimens, len(pairs))
        chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, count).round().astype(int)]
        return [
            _gallery_item(self.fields, index, result, vote(groups[result.score.specimen])) for index, result in chosen
        ]


def _gallery_item(fields: FieldSet, index: int, result: FieldResult, prediction: int | None) -> report.GalleryItem:
    field = fields.fields[index]
    shares = voting.vote_shares(result.votes)
    assert result.predicted is not None
    return report.GalleryItem(
        specimen_id=field.specimen_id,
        field=field.number,
        truth=fields.classes[field.pattern],
        prediction="none" if prediction is None else fields.classes[prediction],
        intensity=field.intensity,
        dice=result.score.counts.figures()["Dice"],
        votes={name: float(share) for name, share in zip(fields.classes, shares, strict=True)},
        image=field.image,
        truth_classes=field.classes,
        predicted_classes=result.predicted,
    )
