"""Pixels of masks: cell against background, and the predicted pattern of each pixel. Counts first, ratios last."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from hep2jax.metrics.estimates import exact_mean, finite_or_none, ratio

VOID = 255
"""Value of class masks where nothing is learnt or measured, such as artefacts; 0 is background, 1 + i is pattern i."""

Labels = Integer[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelRatios:
    """Agreement of a binary segmentation with the truth, see `pixel_ratios` for formulas and 0/0. None is undefined."""

    SE: float | None
    SP: float | None
    JA: float | None
    AC: float | None
    Dice: float | None


@dataclasses.dataclass(frozen=True)
class PixelCounts:
    """Pixels of a binary segmentation, positive = foreground; counts of disjoint pixel sets add with `+`."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        """The counts of both pixel sets together."""
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def ratios(self) -> PixelRatios:
        """The ratios of these counts: `SE`, `SP`, `JA`, `AC` and `Dice`."""
        values = pixel_ratios(np.array(dataclasses.astuple(self), np.int64))
        return PixelRatios(**{name: finite_or_none(value) for name, value in values.items()})


def count_pixels(prediction: Mask, truth: Mask, valid: Mask) -> PixelCounts:
    """Compare two foreground masks where `valid` is set; void pixels are not counted.

    Args:
        prediction: predicted foreground, bool [height, width].
        truth: annotated foreground, bool [height, width].
        valid: pixels that are measured, bool [height, width].

    Raises:
        ValueError: the three arrays differ in shape or one of them is not bool.
    """
    check_same_shape(prediction=prediction, truth=truth, valid=valid)
    for name, mask in (("prediction", prediction), ("truth", truth), ("valid", valid)):
        if mask.dtype != np.bool_:
            raise ValueError(f"{name}: expected a bool mask, got {mask.dtype}")
    predicted = prediction & valid
    num_valid, num_predicted = np.count_nonzero(valid), np.count_nonzero(predicted)
    tp = np.count_nonzero(predicted & truth)
    num_true = np.count_nonzero(truth & valid)
    fp, fn = num_predicted - tp, num_true - tp
    return PixelCounts(int(tp), int(fp), int(fn), int(num_valid - tp - fp - fn))


def pixel_ratios(counts: Int[np.ndarray, "*batch 4"]) -> dict[str, Float[np.ndarray, "*batch"]]:
    """The ratios of `PixelRatios` by name, from (tp, fp, fn, tn) counts; each is float64 of shape `batch`.

    SE = tp/(tp+fn), sensitivity; SP = tn/(tn+fp), specificity; JA = tp/(tp+fp+fn), Jaccard index;
    AC = (tp+tn)/all, pixel accuracy; Dice = 2tp/(2tp+fp+fn) = 2JA/(1+JA). The names are those of Xie et al.,
    Neurocomputing 351 (2019). How that paper averages is not public; we pool pixels.

    0/0: if both prediction and truth are empty, JA and Dice are 1. SE without a true pixel, SP without a background
    pixel and AC without any pixel are undefined: NaN.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, np.int64), -1, 0)
    return {
        "SE": ratio(tp, tp + fn),
        "SP": ratio(tn, tn + fp),
        "JA": ratio(tp, tp + fp + fn, undefined=1.0),
        "AC": ratio(tp + tn, tp + fp + fn + tn),
        "Dice": ratio(2 * tp, 2 * tp + fp + fn, undefined=1.0),
    }


def count_classes(
    prediction: Labels, truth: Labels, valid: Mask, num_patterns: int
) -> Int[np.ndarray, "classes classes"]:
    """Confusion counts of pixel classes, rows = truth, columns = prediction; the counts of images can be added.

    Args:
        prediction: int [height, width], 0 = background, 1+i = pattern i.
        truth: int [height, width], in the same form; void pixels may hold anything.
        valid: bool [height, width].
        num_patterns: K.

    Returns:
        int64 [K+1, K+1].

    Raises:
        ValueError: shapes differ, or a valid pixel has a class outside 0..K.
    """
    check_same_shape(prediction=prediction, truth=truth, valid=valid)
    size = num_patterns + 1
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and not 0 <= values.min() <= values.max() < size:
            raise ValueError(f"{name}: pixel classes {values.min()}..{values.max()} outside 0..{num_patterns}")
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPixelMetrics:
    """How well the patterns of pixels are predicted."""

    mean_class_iou: float | None
    """The mean of `iou` over the patterns that occur in the truth."""
    iou: Mapping[str, float | None]
    """|T∩P| / |T∪P| of each pattern over all valid pixels, so pixels that are predicted as background lower it; None
    for a pattern that occurs neither in the truth nor in the prediction."""
    pattern_accuracy: float | None
    """The share of pixels with the right pattern among the pixels that are foreground in both truth and prediction."""
    confusion: tuple[tuple[int, ...], ...]
    """Confusion counts of those pixels, [K][K], rows = truth."""


def class_pixel_metrics(counts: Int[np.ndarray, "classes classes"], patterns: Sequence[str]) -> ClassPixelMetrics:
    """How well the patterns of pixels are predicted, from the sum of `count_classes` over images.

    Args:
        counts: int [K+1, K+1], rows = truth, class 0 = background.
        patterns: the K names.

    Raises:
        ValueError: the counts are not those of K patterns and background.
    """
    counts = np.asarray(counts, np.int64)
    if counts.shape != (len(patterns) + 1,) * 2:
        raise ValueError(f"counts of shape {counts.shape} do not fit {len(patterns)} patterns and background")
    hits, rows, columns = np.diagonal(counts), counts.sum(1), counts.sum(0)
    iou = ratio(hits, rows + columns - hits)[1:]
    both = counts[1:, 1:]
    return ClassPixelMetrics(
        mean_class_iou=exact_mean(iou[rows[1:] > 0]),
        iou={name: finite_or_none(value) for name, value in zip(patterns, iou, strict=True)},
        pattern_accuracy=finite_or_none(ratio(np.trace(both), both.sum())),
        confusion=rows_of(both),
    )


def rows_of(counts: Int[np.ndarray, "rows columns"]) -> tuple[tuple[int, ...], ...]:
    """A matrix of counts as a tuple of rows."""
    return tuple(tuple(row) for row in counts.tolist())


def check_same_shape(**arrays: np.ndarray) -> None:
    """Raise ValueError if the shapes of the arrays differ; the message gives the shape of each by name."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("arrays differ in shape: " + ", ".join(f"{n} {s}" for n, s in shapes.items()))
