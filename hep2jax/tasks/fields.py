"""Reading whole fields by segmentation: overlapping tiles, scored at native resolution."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config, EvaluationConfig
from hep2jax.data import tiles
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.metrics.objects import connected_objects
from hep2jax.metrics.pixels import VOID, count_classes
from hep2jax.metrics.segmentation import ImageScore, score_image
from hep2jax.specimens import classical, voting
from hep2jax.tasks import cell_patterns, field_results, found_cells
from hep2jax.tasks.base import SPECIMENS_AND_IMAGES, BatchShapes, Evaluator, TaskOfFields, image_shapes
from hep2jax.tasks.calibration import LEAST_SHARE, Outcome
from hep2jax.tasks.cell_patterns import CellPatterns
from hep2jax.tasks.field_results import FieldMetrics, FieldResult, by_specimen, vote
from hep2jax.tasks.mean import TrainedCells
from hep2jax.tasks.reading import DECIMALS, Parameters, Reader, Reading, Ready, as_fields
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training import losses
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldReading:
    """A network's output for one field, at native resolution."""

    foreground: Bool[np.ndarray, "height width"]
    """The pixels that count as cell, see `counted_cells`."""
    cells: Int[np.ndarray, "height width"] | None
    """The label map of the single cells; None if the nuclear diameter is unknown."""
    pattern: Int[np.ndarray, "height width"]
    """0 to patterns - 1; meaningful on the foreground."""
    votes: Int[np.ndarray, " patterns"]
    """int64, foreground pixels by pattern; with `evaluation.cell_reader` those of the cells that it read."""
    scores: Float[np.ndarray, "label pattern"] | None = None
    """What `evaluation.cell_reader` says of each cell, zeros if it was not read; None without such a reader."""


class FieldEvaluator:
    """A network's compiled forward pass over tiles, and its output for whole fields."""

    @staticmethod
    def decode(output: Any) -> Any:
        """Probabilities, float32 [tiles, height, width, 1 + patterns], from the output of a segmenter."""
        return jax.nn.softmax(output.logits.astype(np.float32), axis=-1)

    def __init__(
        self, config: Config, network: Network, mesh: jax.sharding.Mesh, cell_reader: TrainedCells | None = None
    ) -> None:
        """`cell_reader` is that of the configuration, if it is open already."""
        self._config = config
        self._reader = TileReader(config, network, mesh, self.decode)
        reader = cell_reader or cell_patterns.open_named(config, mesh)
        self._cells = reader and CellPatterns(reader.classes, reader.read, config.evaluation.nuclear_diameter)

    def predict(self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Blended probabilities, float32 [h, w, K+1], of each working image, in order.

        Args:
            parameters: (params, batch_stats).
            images: (uint8 [h, w], tone_curve float32 [4]) pairs, see `steps.normalise`.
        """
        blender = tiles.Blender(self._config.evaluation.tile_size, self._config.evaluation.tile_overlap)
        for tile, pixels in self._reader.read(parameters, images):
            blended = blender.add(tile, pixels)
            if blended is not None:
                yield blended

    def read_pixels(
        self, parameters: Parameters, fields: Iterable[field_sets.Field], classes: Sequence[str]
    ) -> Iterator[FieldReading]:
        """The reading of each field, in order. Evaluation, prediction and specimen systems all use this.

        `classes` are the patterns.

        Raises:
            UsageError: a reader of cells is configured that reads other patterns.
        """
        if self._cells and self._cells.classes != tuple(classes):
            raise UsageError(
                f"evaluation.cell_reader: reads {', '.join(self._cells.classes)}, not {', '.join(classes)}"
            )
        fields, ahead = itertools.tee(fields)
        predictions = self.predict(parameters, map(working_pair, ahead))
        for working, field in zip(predictions, fields, strict=True):
            reading = decide(to_native(working, field.image.shape), field.image, self._config.evaluation)
            yield with_patterns_of_cells(reading, field.image, self._cells) if self._cells else reading

    def measure(
        self, parameters: Parameters, fields: Sequence[field_sets.Field], classes: Sequence[str]
    ) -> list[FieldResult]:
        """The results of the fields, in order; `classes` are the patterns."""
        readings = self.read_pixels(parameters, fields, classes)
        return [self._measure_field(field, reading, classes) for field, reading in zip(fields, readings, strict=True)]

    def _measure_field(self, field: field_sets.Field, reading: FieldReading, classes: Sequence[str]) -> FieldResult:
        predicted = np.where(reading.foreground, reading.pattern + 1, 0).astype(np.uint8)
        valid = field.classes != VOID
        return FieldResult(
            number=field.number,
            truth=field.pattern,
            intensity=field.intensity,
            score=self._score(field, classes, reading.foreground, reading.cells),
            baselines=self._baselines(field, classes),
            votes=reading.votes,
            class_counts=count_classes(predicted, field.classes, valid, len(classes)),
            predicted=predicted,
        )

    def _score(
        self, field: field_sets.Field, classes: Sequence[str], foreground: np.ndarray, cells: np.ndarray | None
    ) -> ImageScore:
        valid = field.classes != VOID
        return score_image(
            field.specimen_id,
            classes[field.pattern],
            foreground,
            (field.classes > 0) & valid,
            np.where(valid, field.instances, 0).astype(np.int32),
            valid,
            min_pixels=self._config.evaluation.min_object_pixels,
            predicted_instances=cells,
        )

    def _baselines(self, field: field_sets.Field, classes: Sequence[str]) -> dict[str, ImageScore]:
        options = self._config.evaluation
        scores = {}
        for name in classical.VARIANTS if options.baselines else ():
            cells = classical.segment(field.image, variant=name, nuclear_diameter=options.nuclear_diameter)
            cells = classical.drop_cut_cells(cells, options.nuclear_diameter) if options.drop_cut_cells else cells
            scores[name] = self._score(field, classes, cells > 0, cells)
        return scores


def decide(
    probabilities: Float[np.ndarray, "height width classes"], image: np.ndarray, options: EvaluationConfig
) -> FieldReading:
    """The reading of a field from the probabilities of its pixels (see `voting.decide`), with only cells that count.

    With `evaluation.unsure_band`, the contrast of the image decides where the network hesitates.
    """
    foreground, pattern = voting.decide(probabilities, options.foreground_threshold)
    if options.unsure_band:
        unsure = np.abs(1 - probabilities[..., 0] - options.foreground_threshold) < options.unsure_band
        above = classical.bright(image, variant="otsu_log_watershed", nuclear_diameter=options.nuclear_diameter)
        foreground = np.where(unsure, above, foreground)
    foreground, cells = counted_cells(foreground, options)
    votes = voting.pattern_counts(foreground, pattern, probabilities.shape[-1] - 1)
    return FieldReading(foreground=foreground, cells=cells, pattern=pattern, votes=votes)


def with_patterns_of_cells(reading: FieldReading, image: np.ndarray, reader: CellPatterns) -> FieldReading:
    """The reading with the pattern of each cell as a reader of single cells has it; the pixels of these cells vote.

    Where no cell can be read, everything stays as it was.
    """
    assert reading.cells is not None
    (read,) = reader.read([(image, reading.cells)])
    if not len(read.scores):
        return reading
    of_cells = read.patterns
    votes = voting.pattern_counts(of_cells > 0, of_cells - 1, len(reading.votes))
    pattern = np.where(of_cells > 0, of_cells - 1, reading.pattern)
    return dataclasses.replace(reading, pattern=pattern, votes=votes, scores=read.rows)


def counted_cells(foreground: np.ndarray, options: EvaluationConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """The foreground that counts and the label map of its cells; the map is None if the nuclear diameter is unknown.

    If it is known, holes are filled and specks removed as by the classical segmentation, its baseline.
    """
    if not options.nuclear_diameter:
        return foreground, None
    cells = classical.separate(foreground, options.nuclear_diameter, options.min_object_pixels)
    if options.drop_cut_cells:
        cells = classical.drop_cut_cells(cells, options.nuclear_diameter)
    return cells > 0, cells


def working_pair(field: field_sets.Field) -> tuple[np.ndarray, np.ndarray]:
    """A field as networks of pixels take it: its working image and its tone curve."""
    return field.working_image, plain_tone_curve(field)


def plain_tone_curve(field: field_sets.Field) -> np.ndarray:
    """The tone curve of a field without augmentation, float32 [4]."""
    return np.array([field.grey_offset, field.grey_gain, 1.0, 0.0], np.float32)


def to_native(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities [h, w, K+1], interpolated bilinearly to `shape`."""
    if probabilities.shape[:2] == shape:
        return probabilities
    return cv2.resize(probabilities, shape[::-1], interpolation=cv2.INTER_LINEAR)


class PixelReader(Reader):
    """Reads with networks that label every pixel: the foreground pixels of all fields vote for the pattern."""

    evaluator_class = FieldEvaluator
    finds_cells = True

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        return self._evaluator.read_pixels(self._parameters, as_fields(images, self.config), self.classes)

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        votes = np.stack([field.votes for field in outputs])
        labels = [self._labels(field) for field in outputs]
        cells = [
            found_cells.by_pixels(map_, field.pattern, self.classes, field.scores)
            for map_, field in zip(labels, outputs, strict=True)
        ]
        masks = [(field.pattern.astype(np.uint8) + np.uint8(1)) * field.foreground for field in outputs]
        return self._voted(votes, masks, cells=tuple(cells), cell_labels=tuple(labels))

    def _labels(self, field: Any) -> np.ndarray:
        """The label map of the cells that the evaluation measures; see `Reading.cells`."""
        if field.cells is not None:
            return field.cells
        return connected_objects(field.foreground, self.config.evaluation.min_object_pixels)

    def _voted(self, votes: np.ndarray, masks: Sequence[np.ndarray], **rest) -> Reading:
        winner = voting.vote(votes)
        return Reading(
            patterns=() if winner is None else (self.classes[winner],),
            probabilities=self._by_pattern(voting.vote_shares(votes)),
            class_masks=tuple(mask.astype(np.uint8) for mask in masks),
            **rest,
        )

    @override
    def row(self, reading: Reading) -> dict[str, Any]:
        """The common columns, the share of the votes, the number of cells, the share of cell pixels."""
        return super().row(reading) | {
            "share": round(max(reading.probabilities.values()), DECIMALS),
            "num_cells": reading.num_cells,
            "foreground": round(reading.foreground, DECIMALS),
        }


class FieldTask(TaskOfFields[FieldResult, FieldMetrics]):
    """Segmentation of fields: each pixel is background or has a pattern. Output channel 0 is background."""

    networks = models.SEGMENTERS
    labels_pixels = True
    least_probability = LEAST_SHARE
    reader_class = PixelReader
    layout = report.Layout(
        unit="image",
        key_metrics=(
            *SPECIMENS_AND_IMAGES.key_metrics,
            report.KeyMetrics(prefix="Foreground ", section="pixel", names=("Dice", "JA")),
            report.KeyMetrics(prefix="Objects, ", section="pixel", names=("SEG",)),
        ),
        classifications=SPECIMENS_AND_IMAGES.classifications,
        pictures=report.FieldPictures(),
    )

    @override
    @classmethod
    def count_outputs(cls, classes: Sequence[str]) -> int:
        return 1 + len(classes)

    @override
    @classmethod
    def describe_outputs(cls, num_outputs: int) -> str:
        return f"{num_outputs} output channels, background among them"

    @override
    @classmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        side = config.data.crop_size
        return image_shapes(config, size) | {"labels": jax.ShapeDtypeStruct((size, side, side), np.uint8)}

    @override
    @staticmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        terms = losses.segmentation_loss(output, batch["labels"], class_weights, config.loss)
        return losses.combine(terms, config.loss)

    decode = staticmethod(FieldEvaluator.decode)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(FieldPlan(self.config, self.fields, indices), rows=rows)

    @override
    def under(self, config: Config) -> Self:
        other = super().under(config)
        vars(other).pop("_cell_reader", None)  # another fold may have another reader of cells
        return other

    @override
    def relies_on(self) -> dict[str, str]:
        return {"cell_reader": self._cell_reader.digest} if self._cell_reader else {}

    @functools.cached_property
    def _cell_reader(self) -> TrainedCells | None:
        return cell_patterns.open_named(self.config, meshes.make_mesh())

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[FieldResult]:
        # All processes open the reader of cells here; process 0 asks for it again when it writes the report.
        forward = FieldEvaluator(self.config, network, mesh, self._cell_reader)
        return Evaluator(self.examples, functools.partial(forward.measure, classes=self.classes))

    @override
    def metrics(self, results: Sequence[FieldResult]) -> FieldMetrics:
        return field_results.field_metrics(self.classes, results)

    @override
    def summary(self, measured: FieldMetrics) -> dict[str, float]:
        return field_results.summary(measured)

    @override
    def score(self, measured: FieldMetrics) -> float:
        """The mean of the foreground Dice and the MCA of the specimens."""
        return (float(measured.pixel.Dice) + float(measured.specimen.mca)) / 2

    @override
    def describe(self, split: str, measured: FieldMetrics) -> str:
        return field_results.describe_split(split, measured)

    @override
    def details(self, measured: FieldMetrics) -> list[str]:
        """Every metric of pixels and objects, for the baselines and the network."""
        pixels = {name: baseline.pixel for name, baseline in measured.baselines.items()}
        pixels[self.config.model.name] = measured.pixel
        return [field_results.describe_pixels(name, pixel) for name, pixel in pixels.items()]

    @override
    def to_record(self, result: FieldResult) -> dict[str, Any]:
        return field_results.to_record(result)

    @override
    def from_record(self, record: dict[str, Any]) -> FieldResult:
        return field_results.from_record(record)

    @override
    def outcome(self, result: FieldResult) -> Outcome:
        """With the shares of the votes as probabilities."""
        return Outcome(voting.vote_shares(result.votes), result.truth, str(result.specimen))

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[FieldResult]) -> list[report.GalleryItem]:
        """Pictures of the first field of up to `gallery_specimens` specimens, spread evenly over the split."""
        groups = by_specimen(results)
        first = {}
        for index, result in zip(indices, results, strict=True):
            first.setdefault(result.specimen, (index, result))
        chosen = evenly_spread(list(first.values()), self.config.evaluation.gallery_specimens)
        return [_gallery_item(self.fields, index, result, vote(groups[result.specimen])) for index, result in chosen]


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
        dice=result.score.counts.ratios().Dice,
        votes={name: float(share) for name, share in zip(fields.classes, shares, strict=True)},
        image=field.image,
        truth_classes=field.classes,
        predicted_classes=result.predicted,
    )
