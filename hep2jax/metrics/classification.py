"""Classification of cells, images or specimens: accuracies with intervals, metrics per class, the confusion matrix."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from hep2jax.metrics.estimates import Estimate, Interval, finite_or_none, ratio
from hep2jax.metrics.grouping import group_indices
from hep2jax.metrics.intervals import CLUSTERED, TRIALS, clustered_interval, trials_interval
from hep2jax.metrics.pixels import rows_of

Indices = Int[np.ndarray, " items"]
ByClass = Int[np.ndarray, "specimens classes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """How well one class is recognised."""

    recall: float | None
    """None if no item is of the class."""
    precision: float | None
    """None if no item was predicted as the class."""
    support: int
    """The number of items of the class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """How well items of K classes are classified."""

    aca: Estimate
    """Right items / N: the ICPR 2012 contest's metric ("average classification accuracy", plain accuracy)."""
    mca: Estimate
    """The mean of the class recalls, the contests' metric from 2013 on; here over the classes that occur in the truth,
    because a held-out part may lack one."""
    ci_method: str
    per_class: Mapping[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]
    """[K][K], rows = truth; an item without a decision is in no column."""
    classes: tuple[str, ...]
    num_examples: int
    num_specimens: int | None
    """None if the specimens of the items are unknown."""
    num_undecided: int


def classification_metrics(
    truth: Sequence[int] | Indices,
    prediction: Sequence[int | None] | Indices,
    groups: Iterable[Hashable],
    classes: Sequence[str],
) -> ClassificationMetrics:
    """The metrics of N items, with 95 % intervals.

    Pool the predictions of all folds before calling: one held-out specimen has only one class, so a fold has no MCA.

    Intervals treat the specimen as the unit. If each specimen has one item, they are by `trials_interval`. If specimens
    have several items (cells), they are by `clustered_interval`; but if no class has two specimens, they are again by
    `trials_interval`, with a specimen's share of right items as its one trial, which is conservative. No interval has
    width 0 at 100 %. `ci_method` names the method that was used; docs/intervals.md gives the coverage of each.

    Args:
        truth: class index of each item, int [N] in 0..K-1.
        prediction: predicted class index of each item; None or -1 is no decision, which counts as an error.
        groups: specimen id of each item; one id for specimens that repeat each other.
        classes: the K names.

    Raises:
        ValueError: the lengths differ, or an index is outside the classes.
    """
    truth_index, predicted_index = _class_indices(truth, prediction, len(classes))
    specimens, group_index = group_indices(groups, truth_index.size)
    confusion = _confusion(truth_index, predicted_index, len(classes))
    right, items = _per_group(truth_index, predicted_index, group_index, (len(specimens), len(classes)))
    aca, mca = _aca_and_mca(right.sum(0), items.sum(0))
    (aca_interval, mca_interval), method = _intervals(right, items)
    return ClassificationMetrics(
        aca=Estimate(value=finite_or_none(aca), ci95=aca_interval),
        mca=Estimate(value=finite_or_none(mca), ci95=mca_interval),
        ci_method=method,
        per_class=_per_class(confusion, np.bincount(truth_index, minlength=len(classes)), classes),
        confusion=rows_of(confusion),
        classes=tuple(classes),
        num_examples=int(truth_index.size),
        num_specimens=len(specimens),
        num_undecided=int(np.count_nonzero(predicted_index < 0)),
    )


def describe_recalls(metrics: ClassificationMetrics) -> str:
    """The recall of every class that occurs in the truth, in one line."""
    recalls = ((name, row.recall) for name, row in metrics.per_class.items())
    return "recall: " + ", ".join(f"{name} {recall:.3f}" for name, recall in recalls if recall is not None)


def _per_class(
    confusion: Int[np.ndarray, "classes classes"], support: Int[np.ndarray, " classes"], classes: Sequence[str]
) -> dict[str, ClassMetrics]:
    hits = np.diagonal(confusion)
    recall, precision = ratio(hits, support), ratio(hits, confusion.sum(0))
    return {
        name: ClassMetrics(
            recall=finite_or_none(recall[k]), precision=finite_or_none(precision[k]), support=int(support[k])
        )
        for k, name in enumerate(classes)
    }


def _class_indices(
    truth: Sequence[int] | Indices, prediction: Sequence[int | None] | Indices, num_classes: int
) -> tuple[Indices, Indices]:
    truth_index = np.array(truth, np.int64).reshape(-1)
    predicted_index = np.array([-1 if p is None else p for p in prediction], np.int64).reshape(-1)
    if truth_index.size != predicted_index.size:
        raise ValueError(f"{truth_index.size} true classes but {predicted_index.size} predicted ones")
    for name, index, low in (("truth", truth_index, 0), ("prediction", predicted_index, -1)):
        if index.size and not low <= index.min() <= index.max() < num_classes:
            raise ValueError(f"{name}: class {index.min()}..{index.max()} outside {low}..{num_classes - 1}")
    return truth_index, predicted_index


def _confusion(truth: Indices, prediction: Indices, num_classes: int) -> Int[np.ndarray, "classes classes"]:
    decided = prediction >= 0
    cells = truth[decided] * num_classes + prediction[decided]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _per_group(truth: Indices, prediction: Indices, group: Indices, shape: tuple[int, int]) -> tuple[ByClass, ByClass]:
    """The number of right items and of all items of each specimen and class, int64 [specimens, classes] each."""
    right, items = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(items, (group, truth), 1)
    np.add.at(right, (group, truth), truth == prediction)
    return right, items


def _aca_and_mca(
    right: Int[np.ndarray, " classes"], items: Int[np.ndarray, " classes"]
) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, ""]]:
    """ACA and MCA; MCA is over the classes that have items."""
    recall, present = ratio(right, items, undefined=0.0), items > 0
    return ratio(right.sum(-1), items.sum(-1)), ratio(recall.sum(-1), present.sum(-1))


def _intervals(right: ByClass, items: ByClass) -> tuple[tuple[Interval | None, Interval | None], str]:
    """The intervals of ACA and MCA, and the name of their method."""
    present = items.sum(0) > 0
    right, items = right[:, present], items[:, present]
    if not items.size:
        return (None, None), TRIALS
    num_specimens = (items > 0).sum(0)  # of each class
    equal = np.ones(num_specimens.size)
    if (items.sum(1) > 1).any() and (num_specimens > 1).any():
        return (clustered_interval(right, items, items.sum(0)), clustered_interval(right, items, equal)), CLUSTERED
    successes = ratio(right, items, undefined=0.0).sum(0)
    aca = trials_interval(successes, num_specimens, num_specimens)
    return (aca, trials_interval(successes, num_specimens, equal)), TRIALS
