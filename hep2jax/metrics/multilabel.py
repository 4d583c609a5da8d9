"""Figures of images that may have several patterns, or none, on the host; undefined figures are None."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from hep2jax.metrics.intervals import JACKKNIFE, group_indices, jackknife_interval, ratio

Truth = Bool[np.ndarray, "items patterns"]
Scores = Float[np.ndarray, "items patterns"]
Weights = Float32[np.ndarray, "samples items"]
"""How often each item counts in each sample: whole numbers, in float32 for fast products, exact to 2^24 items."""


def multilabel_report(
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    classes: Sequence[str],
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """How well several patterns an image are read, with 95 % intervals that leave out whole specimens.

    `mAP`: mean over patterns of the average precision Σ (R_n − R_{n−1}) P_n over descending thresholds, without
    interpolation, images of equal probability together. From the decisions, probability >= `threshold`:
    `f1_micro` over all decisions together; `f1_macro`, the mean of the patterns' F1; `exact_match`, the share of
    images whose every decision is right; `hamming`, the share of decisions that are wrong. As in scikit-learn, but the
    means are over the patterns that occur in the truth: those of a part of the data set are only some. Images
    without any pattern count.

    Intervals are by `jackknife_interval`, and the images of one specimen stay together.

    Args:
        truth: annotated patterns, 0 or 1, [N, K].
        probabilities: in [0, 1], float [N, K].
        groups: specimen id of each image; one id for specimens that repeat each other.
        classes: the K names.
        threshold: of the decisions.

    Returns:
        `mAP`, `f1_micro`, `f1_macro`, `exact_match`, `hamming`, each with `<name>_ci95` (None below two specimens);
        `per_class` {name: {average_precision, f1, recall, precision, support}}; `classes`, `num_examples`,
        `num_specimens`, `threshold`, `ci_method`.

    Raises:
        ValueError: shapes differ, a truth is neither 0 nor 1, a probability lies outside [0, 1].
    """
    labels, scores = _checked(truth, probabilities, len(classes))
    specimens, group = group_indices(groups, len(labels))
    decisions = scores >= threshold
    point = _figures(labels, scores, decisions, np.ones((1, len(labels)), np.float32))
    left_in = 1 - np.eye(len(specimens), dtype=np.float32)[:, group]
    without = _figures(labels, scores, decisions, left_in)
    return {
        **{name: _number(value[0]) for name, value in point.items()},
        **{f"{name}_ci95": jackknife_interval(float(value[0]), without[name]) for name, value in point.items()},
        "per_class": _per_class(labels, scores, decisions, classes),
        "classes": list(classes),
        "num_examples": len(labels),
        "num_specimens": len(specimens),
        "threshold": threshold,
        "ci_method": JACKKNIFE,
    }


def average_precisions(truth: Truth, scores: Scores, weights: Weights) -> Float[np.ndarray, "samples patterns"]:
    """Average precision of each pattern under each weighting of the items; NaN for a pattern without a true item."""
    per_pattern = [_average_precision(truth[:, k], scores[:, k], weights) for k in range(truth.shape[1])]
    return np.stack(per_pattern, axis=1) if per_pattern else np.zeros((len(weights), 0))


def _average_precision(truth: np.ndarray, scores: np.ndarray, weights: Weights) -> Float[np.ndarray, " samples"]:
    """The mean, over true items, of the precision among all items of at least their score."""
    at_least = (scores[:, None] >= scores[truth]).astype(np.float32)
    of_true = weights[:, truth]
    found, right = weights @ at_least, of_true @ at_least[truth]
    return ratio((of_true * ratio(right, found, undefined=0.0)).sum(1), of_true.sum(1))


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


def _figures(truth: Truth, scores: Scores, decisions: Truth, weights: Weights) -> dict[str, np.ndarray]:
    """Each figure under each weighting of the items, float64 [samples]."""
    hits, marked, true = (weights @ counted.astype(np.float32) for counted in (truth & decisions, decisions, truth))
    items, wrong = weights.sum(1), truth != decisions
    f1 = np.where(true > 0, ratio(2 * hits, marked + true), np.nan)
    return {
        "mAP": _mean_of_defined(average_precisions(truth, scores, weights)),
        "f1_micro": ratio(2 * hits.sum(1), marked.sum(1) + true.sum(1)),
        "f1_macro": _mean_of_defined(f1),
        "exact_match": ratio(weights @ ~wrong.any(1), items),
        "hamming": ratio(weights @ wrong.sum(1), items * truth.shape[1]),
    }


def _mean_of_defined(values: Float[np.ndarray, "samples patterns"]) -> Float[np.ndarray, " samples"]:
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(1), defined.sum(1))


def _per_class(truth: Truth, scores: Scores, decisions: Truth, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    precisions = average_precisions(truth, scores, np.ones((1, len(truth)), np.float32))[0]
    hits, marked, true = (truth & decisions).sum(0), decisions.sum(0), truth.sum(0)
    figures = {
        "average_precision": precisions,
        "f1": ratio(2 * hits, marked + true),
        "recall": ratio(hits, true),
        "precision": ratio(hits, marked),
    }
    return {
        name: {key: _number(values[k]) for key, values in figures.items()} | {"support": int(true[k])}
        for k, name in enumerate(classes)
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
