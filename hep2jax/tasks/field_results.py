"""The result of each field in an evaluation, and the metrics computed from them: counts first, one division last."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics
from hep2jax.metrics.estimates import defined_values
from hep2jax.metrics.grouping import group_by
from hep2jax.metrics.pixels import PixelCounts, class_pixel_metrics
from hep2jax.metrics.segmentation import ImageScore, SegmentationMetrics, segmentation_metrics
from hep2jax.metrics.serialise import INLINE, OMIT_EMPTY
from hep2jax.specimens import voting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldResult:
    """What one field contributes to the metrics. All of it except `predicted` goes into `report/records.json`."""

    number: int
    truth: int
    intensity: str
    score: ImageScore
    baselines: dict[str, ImageScore]
    """Scores of the variants of `classical.segment` on the same pixels; empty unless requested."""
    votes: np.ndarray
    """int64 [K], foreground pixels by pattern."""
    class_counts: np.ndarray
    """int64 [K+1, K+1], pixel classes, rows = truth."""
    predicted: np.ndarray | None = None
    """uint8 [H, W], 0 is background, 1+i is pattern i; None in a result that was read back from JSON."""

    @property
    def identifier(self) -> str:
        """The identifier of the field's item."""
        return f"{self.specimen}-{self.number}"

    @property
    def specimen(self) -> Hashable:
        """The specimen of the field."""
        return self.score.specimen


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineMetrics:
    """The metrics of a classical segmentation, which predicts no pattern, on the same fields."""

    pixel: SegmentationMetrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldMetrics:
    """The metrics of some fields and of their specimens."""

    images: ClassificationMetrics = dataclasses.field(metadata=INLINE)
    """With the pattern of each field decided by the vote of its pixels."""
    pixel: SegmentationMetrics
    specimen: ClassificationMetrics
    """With the pattern of each specimen decided by the vote of the pixels of all its fields."""
    baselines: Mapping[str, BaselineMetrics] = dataclasses.field(metadata=OMIT_EMPTY)
    """Metrics of the variants of `classical.segment`; empty unless requested."""


def field_metrics(classes: Sequence[str], results: Sequence[FieldResult]) -> FieldMetrics:
    """The metrics of the fields of a split."""
    pixel_classes = class_pixel_metrics(np.sum([row.class_counts for row in results], axis=0), classes)
    names = results[0].baselines if results else ()
    return FieldMetrics(
        images=_classification(classes, [[row] for row in results]),
        pixel=segmentation_metrics([row.score for row in results], pixel_classes),
        specimen=_classification(classes, list(by_specimen(results).values())),
        baselines={
            name: BaselineMetrics(pixel=segmentation_metrics([row.baselines[name] for row in results]))
            for name in names
        },
    )


def _classification(classes: Sequence[str], groups: Sequence[Sequence[FieldResult]]) -> ClassificationMetrics:
    """Metrics where the vote of its pixels gives each group of fields (one field, or all of a specimen) its pattern."""
    return classification_metrics(
        [group[0].truth for group in groups],
        [vote(group) for group in groups],
        [group[0].specimen for group in groups],
        classes,
    )


def vote(group: Sequence[FieldResult]) -> int | None:
    """The pattern by the vote of all foreground pixels of these fields; None if there are none."""
    return voting.vote(np.stack([row.votes for row in group]))


def by_specimen(results: Sequence[FieldResult]) -> dict[Hashable, list[FieldResult]]:
    """The results of the fields of each specimen."""
    return group_by(results, lambda row: row.specimen)


def summary(measured: FieldMetrics) -> dict[str, float]:
    """The headline metrics of pixels, objects and specimens as a flat dictionary, for `metrics.jsonl`."""
    pixel, specimen = measured.pixel, measured.specimen
    return defined_values(
        {
            "Dice": pixel.Dice,
            "JA": pixel.JA,
            "SE": pixel.SE,
            "AC": pixel.AC,
            "SEG": pixel.SEG,
            "specimen_aca": specimen.aca,
            "specimen_mca": specimen.mca,
        }
    )


def describe_split(name: str, measured: FieldMetrics) -> str:
    """One line: foreground Dice and specimen MCA with their intervals."""
    pixel, specimen = measured.pixel, measured.specimen
    return (
        f"{name}: foreground Dice {pixel.Dice}, JA {pixel.JA}, SEG {pixel.SEG}; "
        f"{specimen.num_specimens} specimens: MCA {specimen.mca}, ACA {specimen.aca}"
    )


def describe_pixels(name: str, pixel: SegmentationMetrics) -> str:
    """One line: every metric of pixels and objects with its interval."""
    return f"{name}: SE {pixel.SE}, SP {pixel.SP}, JA {pixel.JA}, AC {pixel.AC}, Dice {pixel.Dice}, SEG {pixel.SEG}"


def to_record(result: FieldResult) -> dict[str, Any]:
    """A result for JSON, without `predicted`."""
    row = {
        "specimen": result.score.specimen,
        "field": result.number,
        "truth": result.truth,
        "intensity": result.intensity,
        "pattern": result.score.pattern,
        "votes": result.votes.tolist(),
        "class_counts": result.class_counts.tolist(),
        "network": _score_record(result.score),
    }
    row["baselines"] = {name: _score_record(score) for name, score in result.baselines.items()}
    return row


def _score_record(score: ImageScore) -> dict[str, Any]:
    return {
        "counts": list(dataclasses.astuple(score.counts)),
        "jaccards": score.jaccards.tolist(),
        "instance_jaccards": score.instance_jaccards.tolist(),
    }


def from_record(row: dict[str, Any]) -> FieldResult:
    """Inverse of `to_record`."""

    def score(values: dict[str, Any]) -> ImageScore:
        return ImageScore(
            specimen=row["specimen"],
            pattern=row["pattern"],
            counts=PixelCounts(*values["counts"]),
            jaccards=np.array(values["jaccards"], np.float64),
            instance_jaccards=np.array(values["instance_jaccards"], np.float64),
        )

    return FieldResult(
        number=row["field"],
        truth=row["truth"],
        intensity=row["intensity"],
        score=score(row["network"]),
        baselines={name: score(values) for name, values in row["baselines"].items()},
        votes=np.array(row["votes"], np.int64),
        class_counts=np.array(row["class_counts"], np.int64),
    )
