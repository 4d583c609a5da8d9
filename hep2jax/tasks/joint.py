"""Reading fields with one network that segments, names and grades: patch by patch, then by the patches' majority."""

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
from hep2jax.config import Config
from hep2jax.data import tiles
from hep2jax.data.sets.fields import VOID, Field, FieldSet
from hep2jax.data.streams.joint import GRADES, JointPlan, grade_of
from hep2jax.data.streams.stream import Stream
from hep2jax.models import JointOutput
from hep2jax.specimens import voting
from hep2jax.tasks.base import Parameters, Task
from hep2jax.tasks.field_results import FieldResult
from hep2jax.tasks.fields import FieldEvaluator, FieldTask, counted_cells, plain_greys
from hep2jax.tasks.words import figure
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchVotes:
    """What the patches of one field say."""

    foreground: Bool[np.ndarray, "height width"]
    """Pixels that at least half of the patches over them take for cell."""
    patterns: Int[np.ndarray, " pattern"]
    """int64 [K], patches that name each pattern."""
    mean_probability: Float[np.ndarray, " pattern"]
    """float64 [K], of each pattern over the patches."""
    grades: Int[np.ndarray, " 2"]
    """int64 [2], patches that name each of `GRADES`."""


class PatchMosaic:
    """Collects the patches of one image at a time.

    A pixel is cell where at least half of the patches over it say so. For the published 15 patches of a camera frame
    that is the published rule: one of two where two patches meet, two of four where four meet. A patch takes a pixel
    for cell above `threshold`, and grades a specimen the higher above 0.5.
    """

    def __init__(self, tile: int, threshold: float) -> None:
        self._tile, self._threshold = tile, threshold
        self._rows: list[tuple[tiles.Tile, JointOutput]] = []

    def add(self, tile: tiles.Tile, said: JointOutput, shape: tuple[int, int]) -> PatchVotes | None:
        """Add what is said of one patch of an image of `shape`; the image's votes, if it was the last."""
        self._rows.append((tile, said))
        if not tile.last:
            return None
        rows, self._rows = self._rows, []
        patterns = np.array([said.pattern for _, said in rows], np.float64)
        grades = np.array([said.intensity > 0.5 for _, said in rows], np.int64)
        return PatchVotes(
            foreground=self._stitch(rows, shape),
            patterns=np.bincount(patterns.argmax(1), minlength=patterns.shape[1]),
            mean_probability=patterns.mean(0),
            grades=np.bincount(grades, minlength=len(GRADES)),
        )

    def _stitch(self, rows: Sequence[tuple[tiles.Tile, JointOutput]], shape: tuple[int, int]) -> np.ndarray:
        height, width = (max(length, self._tile) for length in shape)
        cells, cover = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
        for tile, said in rows:
            place = np.s_[tile.top : tile.top + self._tile, tile.left : tile.left + self._tile]
            cells[place] += said.mask[..., 0] > self._threshold
            cover[place] += 1
        return ((cells > 0) & (2 * cells >= cover))[: shape[0], : shape[1]]


def majority(votes: Sequence[PatchVotes]) -> tuple[int | None, int | None]:
    """The pattern and the grade that most patches of all these fields name; of equals the first in order of classes.

    None and None where no field has a vote (see `JointEvaluator.read`). Percannella et al. (ICPR 2022), public code:
    majority of the patches. Several fields, ties and fields without cells: our reading.
    """
    return voting.vote(np.stack([v.patterns for v in votes])), voting.vote(np.stack([v.grades for v in votes]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointResult:
    """What one field adds to every figure."""

    field: FieldResult
    """Its `votes` are patches, not pixels."""
    grades: Int[np.ndarray, " 2"]
    """As in `PatchVotes`."""

    @property
    def identifier(self) -> str:
        """That of the field's item."""
        return self.field.identifier


class JointEvaluator(FieldEvaluator):
    """A network's compiled forward pass over patches, and what it says of whole fields."""

    def read_fields(
        self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]], shapes: Sequence
    ) -> Iterator[PatchVotes]:
        """Votes of each working image, in order; arguments as those of `predict`."""
        options = self._config.evaluation
        mosaic = PatchMosaic(options.tile_size, options.foreground_threshold)
        for tile, said in self._reader.read(parameters, images):
            votes = mosaic.add(tile, said, shapes[tile.image])
            if votes is not None:
                yield votes

    def read(self, parameters: Parameters, fields: Sequence[Field]) -> list[PatchVotes]:
        """Votes of each field, in order; the masks at native resolution, only cells that count.

        The patches of a field without such a cell have no vote: there is nothing in it to name or to grade.
        """
        images = ((field.working_image, plain_greys(field)) for field in fields)
        votes = self.read_fields(parameters, images, [field.working_image.shape for field in fields])
        return [self._at_native(row, field) for row, field in zip(votes, fields, strict=True)]

    def _at_native(self, votes: PatchVotes, field: Field) -> PatchVotes:
        foreground, _ = counted_cells(resize_mask(votes.foreground, field.image.shape), self._config.evaluation)
        counts = int(foreground.any())
        return dataclasses.replace(
            votes, foreground=foreground, patterns=votes.patterns * counts, grades=votes.grades * counts
        )

    def measure_joint(self, parameters: Parameters, fields: FieldSet, indices: Sequence[int]) -> list[JointResult]:
        """Results of the chosen fields, in order."""
        chosen = [fields.fields[i] for i in indices]
        return [self._measured(f, v, fields) for f, v in zip(chosen, self.read(parameters, chosen), strict=True)]

    def _measured(self, field: Field, votes: PatchVotes, fields: FieldSet) -> JointResult:
        pattern, _ = majority([votes])
        predicted = np.where(votes.foreground, (pattern or 0) + 1, 0).astype(np.uint8)  # no pattern: no foreground
        cells = counted_cells(votes.foreground, self._config.evaluation)[1]
        result = FieldResult(
            number=field.number,
            truth=field.pattern,
            intensity=field.intensity,
            score=self._score(field, fields, votes.foreground, cells),
            baselines=self._baselines(field, fields),
            votes=votes.patterns,
            class_counts=metrics.count_classes(predicted, field.classes, field.classes != VOID, len(fields.classes)),
            predicted=predicted,
        )
        return JointResult(field=result, grades=votes.grades)


def resize_mask(mask: Bool[np.ndarray, "height width"], shape: tuple[int, ...]) -> Bool[np.ndarray, "rows columns"]:
    """The mask at another resolution; outlines lie where its linear interpolation crosses one half."""
    if mask.shape == shape:
        return mask
    return cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


class _SetEvaluator:
    """The evaluator of one data set's fields."""

    def __init__(self, fields: FieldSet, forward: JointEvaluator) -> None:
        self._fields = fields
        self._forward = forward

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[JointResult]:
        """Results of the chosen fields, in order."""
        return self._forward.measure_joint(parameters, self._fields, indices)


class JointTask(Task[JointResult]):
    """A set of whole fields, read for `joint`: what `FieldTask` says of pixels and patterns, and the intensity."""

    def __init__(self, config: Config, fields: FieldSet) -> None:
        self.config = config
        self.fields = fields
        self.name, self.classes, self.items = fields.name, fields.classes, fields.items
        self.examples = fields.fields
        self.num_outputs = len(fields.classes)
        self._pixels = FieldTask(config, fields)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(JointPlan(self.config, self.fields, indices), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> _SetEvaluator:
        return _SetEvaluator(self.fields, JointEvaluator(self.config, network, mesh))

    @override
    def figures(self, results: Sequence[JointResult], protocol: str, leakage: bool) -> dict[str, Any]:
        """As those of `FieldTask`, and `intensity` of specimens, None where no specimen's is known."""
        figures = self._pixels.figures([row.field for row in results], protocol, leakage)
        return figures | {"intensity": self._intensity(results)}

    def _intensity(self, results: Sequence[JointResult]) -> dict[str, Any] | None:
        groups: dict[Any, list[JointResult]] = {}
        for row in results:
            if grade_of(row.field.intensity) >= 0:
                groups.setdefault(row.field.score.specimen, []).append(row)
        if not groups:
            return None
        return metrics.classification_report(
            [grade_of(rows[0].field.intensity) for rows in groups.values()],
            [voting.vote(np.stack([row.grades for row in rows])) for rows in groups.values()],
            list(groups),
            GRADES,
        )

    @override
    def summary(self, figures: dict[str, Any]) -> dict[str, float]:
        graded = figures["intensity"]
        flat = {"intensity_aca": graded["aca"], "intensity_mca": graded["mca"]} if graded else {}
        return self._pixels.summary(figures) | flat

    @override
    def score(self, figures: dict[str, Any]) -> float:
        """The mean of foreground Dice, MCA of the specimens' patterns and, where known, that of their intensities."""
        graded = figures["intensity"]
        parts = [figures["pixel"]["Dice"], figures["specimen"]["mca"], *([graded["mca"]] if graded else [])]
        return sum(parts) / len(parts)

    @override
    def describe(self, side: str, figures: dict[str, Any]) -> str:
        line, graded = self._pixels.describe(side, figures), figures["intensity"]
        return line + (f"; intensity ACA {figure(graded, 'aca')}, MCA {figure(graded, 'mca')}" if graded else "")

    @override
    def details(self, figures: dict[str, Any]) -> list[str]:
        return self._pixels.details(figures)

    @override
    def to_record(self, result: JointResult) -> dict[str, Any]:
        return self._pixels.to_record(result.field) | {"grades": result.grades.tolist()}

    @override
    def from_record(self, record: dict[str, Any]) -> JointResult:
        return JointResult(field=self._pixels.from_record(record), grades=np.array(record["grades"], np.int64))

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[JointResult]) -> list[report.GalleryItem]:
        return self._pixels.gallery(indices, [row.field for row in results])
