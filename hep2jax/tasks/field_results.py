"""What an evaluation measured of each field, and the figures that follow from it: counts first, one division last."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hep2jax import metrics
from hep2jax.metrics import ImageScore
from hep2jax.specimens import voting
from hep2jax.tasks.words import figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldResult:
    """What one field adds to every figure; everything but the picture goes into `report/records.json`."""

    number: int
    truth: int
    intensity: str
    score: ImageScore
    baselines: dict[str, ImageScore]
    """By variant of `classical.segment`, on the same pixels; empty where not asked for."""
    votes: np.ndarray
    """int64 [K], foreground pixels by pattern."""
    class_counts: np.ndarray
    """int64 [K+1, K+1], pixel classes, rows = truth."""
    predicted: np.ndarray | None = None
    """uint8 [H, W], 0 background, 1+i pattern; None where read back from JSON."""

    @property
    def identifier(self) -> str:
        """That of the field's item."""
        return f"{self.score.specimen}-{self.number}"


def side_metrics(
    classes: Sequence[str], results: Sequence[FieldResult], protocol: str, leakage: bool
) -> dict[str, Any]:
    """One side's entry in `report/metrics.json`: images on top, then `pixel`, `specimen` and the baselines."""
    images = _classification(classes, [[r] for r in results])
    pixel = metrics.pixel_report([r.score for r in results])
    pixel["classes"] = metrics.class_pixel_report(np.sum([r.class_counts for r in results], axis=0), classes)
    figures = {
        **images,
        "protocol": protocol,
        "specimen_leakage": leakage,
        "pixel": pixel,
        "specimen": _classification(classes, list(by_specimen(results).values())),
    }
    if results and results[0].baselines:
        figures["baselines"] = {
            name: {"pixel": metrics.pixel_report([r.baselines[name] for r in results])} for name in results[0].baselines
        }
    return figures


def _classification(classes: Sequence[str], groups: Sequence[Sequence[FieldResult]]) -> dict[str, Any]:
    """Every group of fields (one field, or all of a specimen) gets one pattern by the vote of its pixels."""
    votes = [vote(group) for group in groups]
    return metrics.classification_report(
        [group[0].truth for group in groups],
        votes,
        [group[0].score.specimen for group in groups],
        classes,
    )


def vote(group: Sequence[FieldResult]) -> int | None:
    """The pattern that the foreground pixels of these fields name together; None where there are none."""
    return voting.vote(np.stack([r.votes for r in group]))


def by_specimen(results: Sequence[FieldResult]) -> dict[Any, list[FieldResult]]:
    """Results of each specimen's fields, specimens in order of appearance."""
    groups: dict[Any, list[FieldResult]] = {}
    for result in results:
        groups.setdefault(result.score.specimen, []).append(result)
    return groups


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """Foreground Dice, JA, SEG and the patterns of specimens, flat, for `metrics.jsonl`."""
    flat = {name: figures["pixel"][name] for name in ("Dice", "JA", "SE", "AC", "SEG")}
    flat |= {"specimen_aca": figures["specimen"]["aca"], "specimen_mca": figures["specimen"]["mca"]}
    return {name: value for name, value in flat.items() if value is not None}


def describe_side(name: str, figures: dict[str, Any]) -> str:
    """One line: foreground Dice and specimen MCA with their intervals."""
    pixel, whole = figures["pixel"], figures["specimen"]
    return (
        f"{name}: foreground Dice {figure(pixel, 'Dice')}, JA {figure(pixel, 'JA')}, SEG {figure(pixel, 'SEG')}; "
        f"{whole['num_specimens']} specimens: MCA {figure(whole, 'mca')}, ACA {figure(whole, 'aca')}"
    )


def describe_pixels(name: str, pixel: dict[str, Any]) -> str:
    """One line: every pixel and object figure with its interval."""
    return f"{name}: " + ", ".join(f"{key} {figure(pixel, key)}" for key in (*metrics.PIXEL_FIGURES, "SEG"))


def to_record(result: FieldResult) -> dict[str, Any]:
    """A result without its picture, for JSON."""
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
            counts=metrics.PixelCounts(*values["counts"]),
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
