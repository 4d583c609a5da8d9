"""Figures of an evaluation, on the host: integer counts first, one division in float64 at the end.

Counts add over images, tiles and processes, so no figure depends on how the evaluation was batched. Undefined
figures (0/0) are NaN inside arrays and None in everything that goes into a report, because JSON has no NaN.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from hep2jax.metrics.intervals import (
    CLUSTERED,
    JACKKNIFE,
    TRIALS,
    Interval,
    clustered_interval,
    group_indices,
    jackknife_interval,
    ratio,
    trials_interval,
)

PIXEL_FIGURES = ("SE", "SP", "JA", "AC", "Dice")

Labels = Int[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


# Pixels


@dataclasses.dataclass(frozen=True)
class PixelCounts:
    """Pixels of a binary segmentation, positive = foreground; counts of disjoint pixel sets add with `+`."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        """Counts over both pixel sets together."""
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def figures(self) -> dict[str, float | None]:
        """`SE`, `SP`, `JA`, `AC`, `Dice` of these pixels; formulas and 0/0 cases: `pixel_figures`."""
        values = pixel_figures(np.array(dataclasses.astuple(self), np.int64))
        return {name: _finite_or_none(value) for name, value in values.items()}


def count_pixels(prediction: Mask, truth: Mask, valid: Mask) -> PixelCounts:
    """Compare two foreground masks where `valid` is set; void pixels are not counted at all.

    Args:
        prediction: predicted foreground, bool [height, width].
        truth: annotated foreground, bool [height, width].
        valid: pixels that are measured, bool [height, width].

    Raises:
        ValueError: the three arrays differ in shape or one of them is not bool.
    """
    _check_alike(prediction=prediction, truth=truth, valid=valid)
    for name, mask in (("prediction", prediction), ("truth", truth), ("valid", valid)):
        if mask.dtype != np.bool_:
            raise ValueError(f"{name}: expected a bool mask, got {mask.dtype}")
    predicted = prediction & valid
    num_valid, num_predicted = np.count_nonzero(valid), np.count_nonzero(predicted)
    tp = np.count_nonzero(predicted & truth)
    num_true = np.count_nonzero(truth & valid)
    fp, fn = num_predicted - tp, num_true - tp
    return PixelCounts(int(tp), int(fp), int(fn), int(num_valid - tp - fp - fn))


def pixel_figures(counts: Int[np.ndarray, "*batch 4"]) -> dict[str, Any]:
    """Figures of (tp, fp, fn, tn) counts, float64 of shape `batch`.

    SE = tp/(tp+fn), sensitivity; SP = tn/(tn+fp), specificity; JA = tp/(tp+fp+fn), Jaccard index;
    AC = (tp+tn)/all, pixel accuracy; Dice = 2tp/(2tp+fp+fn) = 2JA/(1+JA). The names are those of Xie et al.,
    Neurocomputing 351 (2019); that paper's way of averaging is not public, ours is pooling of pixels.

    0/0: JA and Dice of an empty prediction of an empty truth are 1 (nothing to find, nothing found); SE
    without a true pixel, SP without a background pixel and AC of no pixel at all are NaN: undefined.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, np.int64), -1, 0)
    return {
        "SE": ratio(tp, tp + fn),
        "SP": ratio(tn, tn + fp),
        "JA": ratio(tp, tp + fp + fn, undefined=1.0),
        "AC": ratio(tp + tn, tp + fp + fn + tn),
        "Dice": ratio(2 * tp, 2 * tp + fp + fn, undefined=1.0),
    }


# Objects


def connected_objects(mask: Mask, min_pixels: int = 1, *, connectivity: int = 8) -> Labels:
    """Label the connected regions of a mask 1, 2, ... in scan order; regions under `min_pixels` become 0.

    Args:
        mask: bool [height, width].
        min_pixels: area of the smallest region kept, in pixels.
        connectivity: 8 (diagonal neighbours touch) or 4.

    Returns:
        int32 [height, width], 0 = no object.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask, np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    if count == 1:
        return np.zeros(mask.shape, np.int32)
    kept = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    kept[0] = False
    new_label = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return new_label[np.asarray(labels, np.int32)]


def seg_score(prediction: Labels, reference: Labels, valid: Mask | None = None) -> Float[np.ndarray, " objects"]:
    """Jaccard index of every reference object: the terms of the Cell Tracking Challenge's SEG.

    A reference object R is matched by the predicted object S that covers more than half of it,
    |R∩S| > |R|/2 (so at most one does), and scores |R∩S| / |R∪S|; without a match it scores 0. SEG is the
    mean over reference objects. Definition: Maška et al., Bioinformatics 30 (2014). False objects that match
    nothing cost nothing: read SEG beside JA.

    Args:
        prediction: predicted objects, int [height, width], 0 = none; other labels are arbitrary positive
            numbers.
        reference: reference objects, likewise.
        valid: bool [height, width]; void pixels belong to no object. A reference object without a valid pixel
            is no reference. None: all pixels.

    Returns:
        float64, one value per reference object in order of its label; empty where there is no object.

    Raises:
        ValueError: shapes differ or a label is negative.
    """
    _check_alike(prediction=prediction, reference=reference, **({} if valid is None else {"valid": valid}))
    reference_flat, prediction_flat = _in_scope(reference, valid), _in_scope(prediction, valid)
    reference_area, prediction_area = np.bincount(reference_flat), np.bincount(prediction_flat)
    matched, partner, overlap = _majority_matches(reference_flat, prediction_flat, reference_area)
    jaccard = np.zeros(reference_area.size)
    union = reference_area[matched] + prediction_area[partner] - overlap
    jaccard[matched] = overlap / union
    return jaccard[1:][reference_area[1:] > 0]


def _in_scope(labels: Labels, valid: Mask | None) -> Int[np.ndarray, " pixels"]:
    flat = (labels if valid is None else labels[valid]).reshape(-1).astype(np.int64)
    if flat.size and flat.min() < 0:
        raise ValueError(f"object labels must not be negative, found {flat.min()}")
    return flat


def _majority_matches(reference, prediction, reference_area):
    """(reference label, predicted label, common pixels) of the pairs with more than half the reference."""
    both = (reference > 0) & (prediction > 0)
    stride = prediction.max(initial=0) + 1
    # Only pairs that occur are listed: a full table explodes where a poor mask is thousands of specks.
    pairs, overlap = np.unique(reference[both] * stride + prediction[both], return_counts=True)
    label, partner = pairs // stride, pairs % stride
    majority = 2 * overlap > reference_area[label]
    return label[majority], partner[majority], overlap[majority]


# One image, then many


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """What one image (a field of a specimen) adds to `pixel_report`."""

    specimen: Hashable
    """Specimen id: the unit that intervals resample."""
    pattern: str
    """Name of the specimen's true pattern."""
    counts: PixelCounts
    jaccards: Float[np.ndarray, " objects"]
    """`seg_score` against connected regions of the true foreground."""
    instance_jaccards: Float[np.ndarray, " instances"]
    """`seg_score` against the annotated objects one by one."""


def score_image(
    specimen: Hashable,
    pattern: str,
    prediction: Mask,
    truth: Mask,
    instances: Labels,
    valid: Mask,
    *,
    min_pixels: int = 1,
    predicted_instances: Labels | None = None,
) -> ImageScore:
    """Count one image's pixels and score its objects, at the image's native resolution.

    Two readings of SEG are kept apart. `SEG`: reference objects are the 8-connected regions of the true
    foreground, predicted ones those of the predicted foreground; touching cells are one object on both sides.
    This is how we read the SEG of specimen segmentation by Li and Shen (FCN, FCRN), whose masks hold no
    instances. `SEG_instances`: reference objects are the annotated cells, so cells that the prediction merges
    lose their match; the predicted objects are `predicted_instances` where a method splits touching cells,
    else again connected regions.

    Args:
        specimen: specimen id.
        pattern: name of the specimen's pattern.
        prediction: predicted foreground, bool [height, width].
        truth: annotated foreground, bool [height, width].
        instances: annotated objects, int [height, width], 0 = none.
        valid: measured pixels, bool [height, width] (artefacts are void).
        min_pixels: predicted connected regions under this area are not taken for objects (pixels count
            anyway).
        predicted_instances: predicted objects, int [height, width], 0 = none.
    """
    # Void belongs to no object on either side: what a prediction does there can join nothing.
    regions = connected_objects(prediction & valid, min_pixels)
    predicted = regions if predicted_instances is None else predicted_instances
    return ImageScore(
        specimen=specimen,
        pattern=pattern,
        counts=count_pixels(prediction, truth, valid),
        jaccards=seg_score(regions, connected_objects(truth & valid), valid),
        instance_jaccards=seg_score(predicted, instances, valid),
    )


def pixel_report(images: Sequence[ImageScore]) -> dict[str, Any]:
    """Segmentation figures pooled over all pixels and all objects, with 95 % intervals over specimens.

    Keys: `SE`, `SP`, `JA`, `AC`, `Dice` (see `pixel_figures`), `SEG`, `SEG_instances` (see `score_image`) and
    for each `<name>_ci95`; `pixel_accuracy`, which is `AC` under the name that tells it from SEG (some papers
    call pixel accuracy "segmentation accuracy"); `Dice_mean_per_image`; `Dice_per_pattern` {pattern: Dice};
    `num_images`, `num_specimens`, `num_objects`, `num_instances`, `ci_method`.

    Pooling gives every pixel and every object the same weight, so the figures do not depend on how pixels are
    divided into images. Intervals leave out whole specimens (`jackknife_interval`), because pixels of one specimen
    are not independent. A figure that is undefined, and the interval where there are fewer than two specimens, is
    None.
    """
    counts, seg, instance_seg, num_specimens = _per_specimen(images)
    pooled = {**sum((image.counts for image in images), PixelCounts()).figures()}
    pooled["SEG"] = _mean(np.concatenate([[], *(image.jaccards for image in images)]))
    pooled["SEG_instances"] = _mean(np.concatenate([[], *(image.instance_jaccards for image in images)]))
    without = pixel_figures(counts.sum(0) - counts)
    without |= {"SEG": _means_without_each(seg), "SEG_instances": _means_without_each(instance_seg)}
    intervals = {f"{name}_ci95": jackknife_interval(pooled[name], values) for name, values in without.items()}
    per_image = np.array([image.counts.figures()["Dice"] for image in images], np.float64)
    return {
        **pooled,
        **intervals,
        "pixel_accuracy": pooled["AC"],
        "Dice_mean_per_image": _mean(per_image),
        "Dice_per_pattern": _dice_per_pattern(images),
        "num_images": len(images),
        "num_specimens": num_specimens,
        "num_objects": sum(image.jaccards.size for image in images),
        "num_instances": sum(image.instance_jaccards.size for image in images),
        "ci_method": JACKKNIFE,
    }


def _per_specimen(images: Sequence[ImageScore]):
    """Counts [specimens, 4], and (sum, number) of the two kinds of Jaccard [specimens, 2], by specimen id."""
    groups: dict[Hashable, list[ImageScore]] = {}
    for image in images:
        groups.setdefault(image.specimen, []).append(image)
    members = [groups[specimen] for specimen in sorted(groups, key=repr)]
    counts = [dataclasses.astuple(sum((m.counts for m in group), PixelCounts())) for group in members]
    seg = [_sum_and_number([m.jaccards for m in group]) for group in members]
    instance_seg = [_sum_and_number([m.instance_jaccards for m in group]) for group in members]
    return np.reshape(counts, (-1, 4)).astype(np.int64), seg, instance_seg, len(members)


def _sum_and_number(values: Sequence[np.ndarray]) -> tuple[float, int]:
    joined = np.concatenate([[], *values])
    return math.fsum(joined), joined.size


def _means_without_each(sums: Sequence[tuple[float, int]]) -> np.ndarray:
    rows = np.reshape(sums, (-1, 2)).astype(np.float64)
    return ratio(*(rows.sum(0) - rows).T)


def _dice_per_pattern(images: Sequence[ImageScore]) -> dict[str, float | None]:
    totals: dict[str, PixelCounts] = {}
    for image in images:
        totals[image.pattern] = totals.get(image.pattern, PixelCounts()) + image.counts
    return {pattern: totals[pattern].figures()["Dice"] for pattern in sorted(totals)}


# Patterns of pixels


def count_classes(
    prediction: Labels, truth: Labels, valid: Mask, num_patterns: int
) -> Int[np.ndarray, "classes classes"]:
    """Confusion counts of pixel classes, rows = truth, columns = prediction; they add over images.

    Args:
        prediction: int [height, width], 0 = background, 1+i = pattern i.
        truth: int [height, width], likewise; void pixels may hold anything.
        valid: bool [height, width].
        num_patterns: K.

    Returns:
        int64 [K+1, K+1].

    Raises:
        ValueError: shapes differ or a class lies outside 0..K on a valid pixel.
    """
    _check_alike(prediction=prediction, truth=truth, valid=valid)
    size = num_patterns + 1
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and not 0 <= values.min() <= values.max() < size:
            raise ValueError(f"{name}: pixel classes {values.min()}..{values.max()} outside 0..{num_patterns}")
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


def class_pixel_report(counts: Int[np.ndarray, "classes classes"], patterns: Sequence[str]) -> dict[str, Any]:
    """Which pattern the pixels were given, from the sum of `count_classes`.

    Args:
        counts: int [K+1, K+1], rows = truth, class 0 = background.
        patterns: the K names.

    Returns:
        `iou` {pattern: |T∩P|/|T∪P| over all valid pixels, so pixels lost to background count against it; None
        for a pattern that occurs neither in truth nor in prediction}; `mean_class_iou`, the mean over
        patterns that occur in the truth; `confusion` [[K x K]] of the pixels that are foreground in both
        (rows = truth); `pattern_accuracy`, the share of those pixels with the right pattern.
    """
    counts = np.asarray(counts, np.int64)
    if counts.shape != (len(patterns) + 1,) * 2:
        raise ValueError(f"counts of shape {counts.shape} do not fit {len(patterns)} patterns and background")
    hits, rows, columns = np.diagonal(counts), counts.sum(1), counts.sum(0)
    iou = ratio(hits, rows + columns - hits)[1:]
    both = counts[1:, 1:]
    return {
        "mean_class_iou": _mean(iou[rows[1:] > 0]),
        "iou": {name: _finite_or_none(value) for name, value in zip(patterns, iou, strict=True)},
        "pattern_accuracy": _finite_or_none(ratio(np.trace(both), both.sum())),
        "confusion": both.tolist(),
    }


# Classification of cells or specimens


def classification_report(
    truth: Sequence[int] | np.ndarray,
    prediction: Sequence[int | None] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    classes: Sequence[str],
    *,
    seed: int = 0,
    samples: int = 2000,
) -> dict[str, Any]:
    """ACA and MCA with 95 % intervals, per-class figures and the confusion matrix of N items.

    ACA = right items / N, the ICPR 2012 contest's metric ("average classification accuracy", plain accuracy).
    MCA = mean of the class recalls, the contests' metric from 2013 on, here over the classes that occur in
    the truth (a held-out part may lack one). Pool the predictions of all folds before calling: one held-out
    specimen has one class only, so a fold has no MCA.

    Intervals treat the specimen as the unit: where each holds one item, by `trials_interval`; where specimens hold
    several (cells), by `clustered_interval`, or again by the first with a specimen's share of right items as its one
    trial, which is conservative, where no class has two specimens. All keep a width at 100 %. `ci_method` names the one
    used, docs/intervals.md says how well they cover.

    Args:
        truth: class index of each item, int [N] in 0..K-1.
        prediction: predicted class index of each item; None or -1 = no decision, which is an error of the
            item and stands in no column of `confusion`.
        groups: specimen id of each item; one id for specimens that repeat each other.
        classes: the K names.

    Returns:
        `aca`, `mca`, `aca_ci95`, `mca_ci95`, `per_class` {name: {recall, precision, support}}, `confusion`
        (rows = truth), `classes`, `num_examples`, `num_specimens`, `num_undecided`, `ci_method`. Undefined
        figures are None.

    Raises:
        ValueError: lengths differ or an index lies outside the classes.
    """
    truth_index, predicted_index = _class_indices(truth, prediction, len(classes))
    specimens, group_index = group_indices(groups, truth_index.size)
    confusion = _confusion(truth_index, predicted_index, len(classes))
    support = np.bincount(truth_index, minlength=len(classes))
    recall, precision = (
        ratio(np.diagonal(confusion), support),
        ratio(np.diagonal(confusion), confusion.sum(0)),
    )
    right, items = _per_group(truth_index, predicted_index, group_index, (len(specimens), len(classes)))
    aca, mca = _aca_and_mca(right.sum(0), items.sum(0))
    (aca_interval, mca_interval), method = _classification_intervals(right, items)
    return {
        "aca": _finite_or_none(aca),
        "mca": _finite_or_none(mca),
        "aca_ci95": aca_interval,
        "mca_ci95": mca_interval,
        "ci_method": method,
        "per_class": {
            name: {
                "recall": _finite_or_none(recall[k]),
                "precision": _finite_or_none(precision[k]),
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
        "classes": list(classes),
        "num_examples": int(truth_index.size),
        "num_specimens": len(specimens),
        "num_undecided": int(np.count_nonzero(predicted_index < 0)),
    }


def _class_indices(truth: Any, prediction: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    truth_index = np.array(truth, np.int64).reshape(-1)
    predicted_index = np.array([-1 if p is None else p for p in prediction], np.int64).reshape(-1)
    if truth_index.size != predicted_index.size:
        raise ValueError(f"{truth_index.size} true classes but {predicted_index.size} predicted ones")
    for name, index, low in (("truth", truth_index, 0), ("prediction", predicted_index, -1)):
        if index.size and not low <= index.min() <= index.max() < num_classes:
            raise ValueError(f"{name}: class {index.min()}..{index.max()} outside {low}..{num_classes - 1}")
    return truth_index, predicted_index


def _confusion(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    decided = prediction >= 0
    cells = truth[decided] * num_classes + prediction[decided]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _per_group(truth, prediction, group, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Right items and items of each specimen and class, int64 [specimens, classes]."""
    right, items = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(items, (group, truth), 1)
    np.add.at(right, (group, truth), truth == prediction)
    return right, items


def _aca_and_mca(right: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ACA and MCA of counts [..., classes]; MCA over the classes with items."""
    recall, present = ratio(right, items, undefined=0.0), items > 0
    return ratio(right.sum(-1), items.sum(-1)), ratio(recall.sum(-1), present.sum(-1))


def _classification_intervals(right: np.ndarray, items: np.ndarray) -> tuple[tuple[Interval, Interval], str]:
    present = items.sum(0) > 0
    right, items = right[:, present], items[:, present]
    if not items.size:
        return (None, None), TRIALS
    of_class = (items > 0).sum(0)
    equally = np.ones(of_class.size)
    if (items.sum(1) > 1).any() and (of_class > 1).any():
        return (clustered_interval(right, items, items.sum(0)), clustered_interval(right, items, equally)), CLUSTERED
    won = ratio(right, items, undefined=0.0).sum(0)
    return (trials_interval(won, of_class, of_class), trials_interval(won, of_class, equally)), TRIALS


# Small arithmetic


def _mean(values: np.ndarray) -> float | None:
    # fsum is exact, so the order of images and processes cannot change the last digit.
    return math.fsum(values) / values.size if values.size else None


def _finite_or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _check_alike(**arrays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("arrays differ in shape: " + ", ".join(f"{n} {s}" for n, s in shapes.items()))
