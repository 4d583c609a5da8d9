"""Reading fields with one network that segments, classifies and grades patches; the majority of patches decides."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config
from hep2jax.data import tiles
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams.joint import GRADES, JointPlan, grade_of
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics
from hep2jax.metrics.estimates import defined_values
from hep2jax.metrics.grouping import group_by
from hep2jax.metrics.pixels import VOID, count_classes
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import JointOutput
from hep2jax.specimens import voting
from hep2jax.tasks import found_cells
from hep2jax.tasks.base import BatchShapes, Evaluator, TaskOfFields
from hep2jax.tasks.calibration import LEAST_SHARE, Outcome
from hep2jax.tasks.field_results import FieldMetrics, FieldResult
from hep2jax.tasks.fields import FieldEvaluator, FieldTask, PixelReader, counted_cells, working_pair
from hep2jax.tasks.found_cells import FoundCell
from hep2jax.tasks.reading import Parameters, Reading, Ready, as_fields
from hep2jax.training import losses
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchVotes:
    """The votes of the patches of one field."""

    foreground: Bool[np.ndarray, "height width"]
    """Pixels that at least half of the patches over them predict as cell."""
    patterns: Int[np.ndarray, " pattern"]
    """int64 [K], number of patches that predict each pattern."""
    mean_probability: Float[np.ndarray, " pattern"]
    """float64 [K], mean probability of each pattern over the patches."""
    grades: Int[np.ndarray, " 2"]
    """int64 [2], number of patches that predict each of `GRADES`."""
    cells: Int[np.ndarray, "height width"] | None = None
    """The label map of the single cells at native resolution; None if the nuclear diameter is unknown."""


class PatchMosaic:
    """Collects the patches of one image at a time.

    A pixel is cell if at least half of the patches over it predict so. For the published 15 patches of a camera frame
    that is the published rule: one of two where two patches overlap, two of four where four overlap. A patch predicts
    cell where the probability is above `threshold`, and the higher grade where its probability is above 0.5.
    """

    def __init__(self, tile: int, threshold: float) -> None:
        self._tile, self._threshold = tile, threshold
        self._patches: list[tuple[tiles.Tile, JointOutput]] = []

    def add(self, tile: tiles.Tile, output: JointOutput) -> PatchVotes | None:
        """Add the output for one patch. Returns the image's votes after its last patch."""
        self._patches.append((tile, output))
        if not tile.last:
            return None
        patches, self._patches = self._patches, []
        patterns = np.array([output.pattern for _, output in patches], np.float64)
        grades = np.array([output.intensity > 0.5 for _, output in patches], np.int64)
        return PatchVotes(
            foreground=self._stitch(patches, tile.shape),
            patterns=np.bincount(patterns.argmax(1), minlength=patterns.shape[1]),
            mean_probability=patterns.mean(0),
            grades=np.bincount(grades, minlength=len(GRADES)),
        )

    def _stitch(self, patches: Sequence[tuple[tiles.Tile, JointOutput]], shape: tuple[int, int]) -> np.ndarray:
        height, width = (max(length, self._tile) for length in shape)
        cells, cover = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
        for tile, output in patches:
            place = np.s_[tile.top : tile.top + self._tile, tile.left : tile.left + self._tile]
            cells[place] += output.mask[..., 0] > self._threshold
            cover[place] += 1
        return ((cells > 0) & (2 * cells >= cover))[: shape[0], : shape[1]]


def majority(votes: Sequence[PatchVotes]) -> tuple[int | None, int | None]:
    """The pattern and the grade that most patches of all these fields predict; of tied ones the first.

    Both are None if no field has a vote (see `JointEvaluator.read`). The majority of the patches is the rule of the
    public code of Percannella et al. (ICPR 2022). How to treat several fields, ties and fields without cells is our
    reading.
    """
    patterns, grades = np.stack([field.patterns for field in votes]), np.stack([field.grades for field in votes])
    return voting.vote(patterns), voting.vote(grades)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointResult:
    """What one field contributes to the metrics."""

    field: FieldResult
    """Its `votes` count patches, not pixels."""
    grades: Int[np.ndarray, " 2"]
    """As in `PatchVotes`."""

    @property
    def identifier(self) -> str:
        """The identifier of the field's item."""
        return self.field.identifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointMetrics:
    """The metrics of some fields: masks, patterns and intensities."""

    fields: FieldMetrics = dataclasses.field(metadata=INLINE)
    intensity: ClassificationMetrics | None
    """Of specimens, each graded by the majority of its fields' patches; None if no specimen's grade is known."""


class JointEvaluator(FieldEvaluator):
    """A network's compiled forward pass over patches, and its output for whole fields."""

    @override
    @staticmethod
    def decode(output: JointOutput) -> JointOutput:
        """Replace the logits by probabilities."""
        pattern = jax.nn.softmax(output.pattern)
        return JointOutput(jax.nn.sigmoid(output.mask), pattern, jax.nn.sigmoid(output.intensity))

    def read_fields(
        self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[PatchVotes]:
        """The votes of each working image, in order; arguments as in `predict`."""
        options = self._config.evaluation
        mosaic = PatchMosaic(options.tile_size, options.foreground_threshold)
        for tile, output in self._reader.read(parameters, images):
            votes = mosaic.add(tile, output)
            if votes is not None:
                yield votes

    def read(self, parameters: Parameters, fields: Iterable[Field]) -> Iterator[PatchVotes]:
        """The votes of each field, in order, with masks at native resolution that hold only cells that count.

        The patches of a field without such a cell have no vote: it shows nothing to classify or to grade.
        """
        fields, ahead = itertools.tee(fields)
        all_votes = self.read_fields(parameters, map(working_pair, ahead))
        return (self._at_native(votes, field) for votes, field in zip(all_votes, fields, strict=True))

    def _at_native(self, votes: PatchVotes, field: Field) -> PatchVotes:
        foreground, cells = counted_cells(resize_mask(votes.foreground, field.image.shape), self._config.evaluation)
        has_cells = int(foreground.any())
        return dataclasses.replace(
            votes,
            foreground=foreground,
            cells=cells,
            patterns=votes.patterns * has_cells,
            grades=votes.grades * has_cells,
        )

    def measure_joint(
        self, parameters: Parameters, fields: Sequence[Field], classes: Sequence[str]
    ) -> list[JointResult]:
        """The results of the fields, in order; `classes` are the patterns."""
        all_votes = self.read(parameters, fields)
        return [self._measured(field, votes, classes) for field, votes in zip(fields, all_votes, strict=True)]

    def _measured(self, field: Field, votes: PatchVotes, classes: Sequence[str]) -> JointResult:
        pattern, _ = majority([votes])
        # Where there is no pattern there is no foreground either, so the 0 in its place is never used.
        predicted = np.where(votes.foreground, (pattern or 0) + 1, 0).astype(np.uint8)
        result = FieldResult(
            number=field.number,
            truth=field.pattern,
            intensity=field.intensity,
            score=self._score(field, classes, votes.foreground, votes.cells),
            baselines=self._baselines(field, classes),
            votes=votes.patterns,
            class_counts=count_classes(predicted, field.classes, field.classes != VOID, len(classes)),
            predicted=predicted,
        )
        return JointResult(field=result, grades=votes.grades)


def resize_mask(mask: Bool[np.ndarray, "height width"], shape: tuple[int, ...]) -> Bool[np.ndarray, "rows columns"]:
    """The mask at another resolution: its linear interpolation, thresholded at one half."""
    if mask.shape == shape:
        return mask
    return cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


class PatchReader(PixelReader):
    """Reads with networks that segment patches, predict their pattern and grade their intensity: the patches vote."""

    evaluator_class = JointEvaluator

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        return self._evaluator.read(self._parameters, as_fields(images, self.config))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        masks = [np.where(field.foreground, (majority([field])[0] or 0) + 1, 0) for field in outputs]
        _, grade = majority(outputs)
        labels = [self._labels(field) for field in outputs]
        return self._voted(
            np.stack([field.patterns for field in outputs]),
            masks,
            intensity="none" if grade is None else GRADES[grade],
            cells=tuple(self._cells(map_, field) for map_, field in zip(labels, outputs, strict=True)),
            cell_labels=tuple(labels),
        )

    def _cells(self, labels: np.ndarray, field: PatchVotes) -> tuple[FoundCell, ...]:
        """The cells of a field, each with the votes of the field's patches."""
        votes = np.broadcast_to(field.patterns, (int(labels.max(initial=0)) + 1, len(field.patterns)))
        return found_cells.by_votes(labels, votes, self.classes)

    @override
    def row(self, reading: Reading) -> dict[str, Any]:
        """The columns of `PixelReader`, then the intensity."""
        return super().row(reading) | {"intensity": reading.intensity}


class JointTask(TaskOfFields[JointResult, JointMetrics]):
    """Reading of fields by patches: pixels and patterns as in `FieldTask`, and the intensity of the specimen."""

    networks = models.JOINT_READERS
    least_probability = LEAST_SHARE
    reader_class = PatchReader
    layout = dataclasses.replace(
        FieldTask.layout,
        classifications=(
            *FieldTask.layout.classifications,
            report.Classification(title="Intensity", unit="specimen", section="intensity", of_patterns=False),
        ),
    )

    def __init__(self, config: Config, fields: FieldSet) -> None:
        super().__init__(config, fields)
        self._pixels = FieldTask(config, fields)

    @override
    @classmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        specimens = {name: jax.ShapeDtypeStruct((size,), np.int32) for name in ("patterns", "grades")}
        return FieldTask.batch_shapes(config, size) | specimens

    @override
    @staticmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        labels, patterns, grades = batch["labels"], batch["patterns"], batch["grades"]
        return losses.joint_loss(output, labels, patterns, grades, class_weights, config.loss)

    decode = staticmethod(JointEvaluator.decode)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(JointPlan(self.config, self.fields, indices), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[JointResult]:
        forward = JointEvaluator(self.config, network, mesh)
        return Evaluator(self.examples, functools.partial(forward.measure_joint, classes=self.classes))

    @override
    def metrics(self, results: Sequence[JointResult]) -> JointMetrics:
        return JointMetrics(fields=self._pixels.metrics([row.field for row in results]), intensity=_intensity(results))

    @override
    def summary(self, measured: JointMetrics) -> dict[str, float]:
        graded = measured.intensity
        estimates = {"intensity_aca": graded.aca, "intensity_mca": graded.mca} if graded else {}
        return self._pixels.summary(measured.fields) | defined_values(estimates)

    @override
    def score(self, measured: JointMetrics) -> float:
        """The mean of the foreground Dice and the MCAs of the specimens' patterns and, if known, intensities."""
        parts = [measured.fields.pixel.Dice, measured.fields.specimen.mca]
        parts += [measured.intensity.mca] if measured.intensity else []
        return sum(map(float, parts)) / len(parts)

    @override
    def describe(self, split: str, measured: JointMetrics) -> str:
        line, graded = self._pixels.describe(split, measured.fields), measured.intensity
        return line + (f"; intensity ACA {graded.aca}, MCA {graded.mca}" if graded else "")

    @override
    def details(self, measured: JointMetrics) -> list[str]:
        return self._pixels.details(measured.fields)

    @override
    def to_record(self, result: JointResult) -> dict[str, Any]:
        return self._pixels.to_record(result.field) | {"grades": result.grades.tolist()}

    @override
    def from_record(self, record: dict[str, Any]) -> JointResult:
        return JointResult(field=self._pixels.from_record(record), grades=np.array(record["grades"], np.int64))

    @override
    def outcome(self, result: JointResult) -> Outcome:
        """With the shares of the patches' votes as probabilities."""
        return self._pixels.outcome(result.field)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[JointResult]) -> list[report.GalleryItem]:
        return self._pixels.gallery(indices, [row.field for row in results])


def _intensity(results: Sequence[JointResult]) -> ClassificationMetrics | None:
    graded = [row for row in results if grade_of(row.field.intensity) >= 0]
    specimens = group_by(graded, lambda row: row.field.specimen)
    if not specimens:
        return None
    return classification_metrics(
        [grade_of(rows[0].field.intensity) for rows in specimens.values()],
        [voting.vote(np.stack([row.grades for row in rows])) for rows in specimens.values()],
        list(specimens),
        GRADES,
    )
