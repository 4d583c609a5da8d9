"""Metrics of images that may have several patterns, or none."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from hep2jax.metrics.estimates import Estimate, finite_or_none, ratio
from hep2jax.metrics.grouping import group_indices
from hep2jax.metrics.intervals import JACKKNIFE, jackknife_interval

Truth = Bool[np.ndarray, "items patterns"]
Scores = Float[np.ndarray, "items patterns"]
Weights = Float32[np.ndarray, "samples items"]
"""How often each item counts in each sample. Whole numbers in float32, for fast products; exact up to 2^24 items."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternMetrics:
    """How well the presence of one pattern is recognised; undefined values (0/0) are None."""

    average_precision: float | None
    f1: float | None
    recall: float | None
    precision: float | None
    support: int
    """The number of images that have the pattern."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultilabelMetrics:
    """How well the patterns of images are recognised; means over patterns are over those that occur in the truth."""

    mAP: Estimate
    """The mean over patterns of the average precision Σ (R_n − R_{n−1}) P_n over descending thresholds, without
    interpolation; images of equal probability share one threshold."""
    f1_micro: Estimate
    """F1 over the decisions of all patterns together."""
    f1_macro: Estimate
    """The mean of the patterns' F1."""
    exact_match: Estimate
    """The share of images for which every decision is right."""
    hamming: Estimate
    """The share of decisions that are wrong."""
    per_class: Mapping[str, PatternMetrics]
    classes: tuple[str, ...]
    num_examples: int
    num_specimens: int | None
    """None if the specimens of the images are unknown."""
    threshold: float
    """A pattern is predicted if its probability is at least this."""
    ci_method: str


def multilabel_metrics(
    truth: Any,
    probabilities: Any,
    groups: Iterable[Hashable],
    classes: Sequence[str],
    *,
    threshold: float = 0.5,
) -> MultilabelMetrics:
    """The metrics of N images, with 95 % intervals that leave out all images of a specimen together.

    They are defined as in scikit-learn, except that the means over patterns leave out those that do not occur in the
    truth, because a part of the data set may have only some of them. Images without any pattern count. Intervals are by
    `jackknife_interval`; there are none with fewer than two specimens.

    Args:
        truth: annotated patterns, 0 or 1, [N, K].
        probabilities: in [0, 1], float [N, K].
        groups: specimen id of each image; one id for specimens that repeat each other.
        classes: the K names.
        threshold: the probability from which on a pattern is predicted.

    Raises:
        ValueError: shapes differ, a truth is neither 0 nor 1, or a probability is outside [0, 1].
    """
    labels, scores = _checked(truth, probabilities, len(classes))
    specimens, group = group_indices(groups, len(labels))
    decisions = scores >= threshold
    pooled = _weighted(labels, scores, decisions, np.ones((1, len(labels)), np.float32))
    others = 1 - np.eye(len(specimens), dtype=np.float32)[:, group]
    without = _weighted(labels, scores, decisions, others)
    estimates = {
        name: Estimate(value=finite_or_none(value[0]), ci95=jackknife_interval(float(value[0]), without[name]))
        for name, value in pooled.items()
    }
    return MultilabelMetrics(
        **estimates,
        per_class=_per_class(labels, scores, decisions, classes),
        classes=tuple(classes),
        num_examples=len(labels),
        num_specimens=len(specimens),
        threshold=threshold,
        ci_method=JACKKNIFE,
    )


def average_precisions(truth: Truth, scores: Scores, weights: Weights) -> Float[np.ndarray, "samples patterns"]:
    """Average precision of each pattern under each weighting of the items; NaN for a pattern that no item has."""
    per_pattern = [_average_precision(truth[:, k], scores[:, k], weights) for k in range(truth.shape[1])]
    return np.stack(per_pattern, axis=1) if per_pattern else np.zeros((len(weights), 0))


def _average_precision(truth: np.ndarray, scores: np.ndarray, weights: Weights) -> Float[np.ndarray, " samples"]:
    """The mean over true items of the precision among all items whose score is at least as high."""
    at_least = (scores[:, None] >= scores[truth]).astype(np.float32)
    of_true = weights[:, truth]
    predicted, right = weights @ at_least, of_true @ at_least[truth]
    return ratio((of_true * ratio(right, predicted, undefined=0.0)).sum(1), of_true.sum(1))


def _checked(truth: Any, probabilities: Any, num_classes: int) -> tuple[Truth, Scores]:
    labels, scores = np.asarray(truth), np.asarray(probabilities, np.float64)
    if labels.shape != scores.shape or labels.ndim != 2 or labels.shape[1] != num_classes:
        raise ValueError(f"truth {labels.shape} and probabilities {scores.shape} do not fit {num_classes} patterns")
    if not len(labels):
        raise ValueError("no image to measure")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("truth: expected 0 and 1 only")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("probabilities: expected values in [0, 1]")
    return labels.astype(bool), scores


def _weighted(
    truth: Truth, scores: Scores, decisions: Truth, weights: Weights
) -> dict[str, Float[np.ndarray, " samples"]]:
    """Each metric under each weighting of the items, float64 [samples]."""
    hits, predicted, true = (weights @ counted.astype(np.float32) for counted in (truth & decisions, decisions, truth))
    items, wrong = weights.sum(1), truth != decisions
    f1 = np.where(true > 0, ratio(2 * hits, predicted + true), np.nan)
    return {
        "mAP": _mean_of_defined(average_precisions(truth, scores, weights)),
        "f1_micro": ratio(2 * hits.sum(1), predicted.sum(1) + true.sum(1)),
        "f1_macro": _mean_of_defined(f1),
        "exact_match": ratio(weights @ ~wrong.any(1), items),
        "hamming": ratio(weights @ wrong.sum(1), items * truth.shape[1]),
    }


def _mean_of_defined(values: Float[np.ndarray, "samples patterns"]) -> Float[np.ndarray, " samples"]:
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(1), defined.sum(1))


def _per_class(truth: Truth, scores: Scores, decisions: Truth, classes: Sequence[str]) -> dict[str, PatternMetrics]:
    precisions = average_precisions(truth, scores, np.ones((1, len(truth)), np.float32))[0]
    hits, predicted, true = (truth & decisions).sum(0), decisions.sum(0), truth.sum(0)
    values = {
        "average_precision": precisions,
        "f1": ratio(2 * hits, predicted + true),
        "recall": ratio(hits, true),
        "precision": ratio(hits, predicted),
    }
    return {
        name: PatternMetrics(**{key: finite_or_none(metric[k]) for key, metric in values.items()}, support=int(true[k]))
        for k, name in enumerate(classes)
    }
