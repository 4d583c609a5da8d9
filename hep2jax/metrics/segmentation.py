"""Segmentation of images: the score of one image, and the metrics of pixels and objects of many, with intervals."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from hep2jax.metrics.estimates import Estimate, exact_mean, ratio
from hep2jax.metrics.grouping import group_by
from hep2jax.metrics.intervals import JACKKNIFE, jackknife_interval
from hep2jax.metrics.objects import connected_objects, seg_score
from hep2jax.metrics.pixels import (
    ClassPixelMetrics,
    Labels,
    Mask,
    PixelCounts,
    count_pixels,
    pixel_ratios,
)
from hep2jax.metrics.serialise import OMIT_EMPTY


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """What one image (a field of a specimen) contributes to `segmentation_metrics`."""

    specimen: Hashable
    """Specimen id; intervals take the specimen as the unit."""
    pattern: str
    """Name of the specimen's true pattern."""
    counts: PixelCounts
    jaccards: Float[np.ndarray, " objects"]
    """`seg_score` against connected regions of the true foreground."""
    instance_jaccards: Float[np.ndarray, " instances"]
    """`seg_score` against the single annotated objects."""


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

    There are two versions of SEG. In `SEG` the reference objects are the 8-connected regions of the true foreground,
    and the predicted objects those of the predicted foreground; touching cells are one object in both. This is how we
    interpret the SEG of specimen segmentation by Li and Shen (FCN, FCRN), whose masks have no instances. In
    `SEG_instances` the reference objects are the annotated cells, so cells that the prediction merges lose their match;
    the predicted objects are `predicted_instances` if a method splits touching cells, else again connected regions.

    Args:
        specimen: specimen id.
        pattern: name of the specimen's pattern.
        prediction: predicted foreground, bool [height, width].
        truth: annotated foreground, bool [height, width].
        instances: annotated objects, int [height, width], 0 = none.
        valid: measured pixels, bool [height, width] (artefacts are void).
        min_pixels: predicted connected regions smaller than this are not objects (their pixels count nevertheless).
        predicted_instances: predicted objects, int [height, width], 0 = none.
    """
    # Void pixels belong to no object, neither true nor predicted: a prediction there cannot join two objects.
    regions = connected_objects(prediction & valid, min_pixels)
    predicted = regions if predicted_instances is None else predicted_instances
    return ImageScore(
        specimen=specimen,
        pattern=pattern,
        counts=count_pixels(prediction, truth, valid),
        jaccards=seg_score(regions, connected_objects(truth & valid), valid),
        instance_jaccards=seg_score(predicted, instances, valid),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationMetrics:
    """Cell against background, pooled over all pixels and objects, so that each pixel and each object counts the same.

    The result does not depend on how pixels are divided into images.
    """

    SE: Estimate
    SP: Estimate
    JA: Estimate
    AC: Estimate
    Dice: Estimate
    """Metrics of pixels, see `pixel_ratios`."""
    SEG: Estimate
    SEG_instances: Estimate
    """Metrics of objects, see `score_image`."""
    pixel_accuracy: float | None
    """`AC` under a name that cannot be confused with SEG; some papers call pixel accuracy "segmentation accuracy"."""
    Dice_mean_per_image: float | None
    Dice_per_pattern: Mapping[str, float | None]
    num_images: int
    num_specimens: int
    num_objects: int
    """The number of terms in `SEG`."""
    num_instances: int
    """The number of terms in `SEG_instances`."""
    ci_method: str
    classes: ClassPixelMetrics | None = dataclasses.field(default=None, metadata=OMIT_EMPTY)
    """How well the patterns of pixels are predicted; None if the method predicts none."""


def segmentation_metrics(images: Sequence[ImageScore], classes: ClassPixelMetrics | None = None) -> SegmentationMetrics:
    """The metrics of some images, with 95 % intervals over specimens.

    Intervals leave out all images of a specimen together (`jackknife_interval`), because pixels of one specimen are not
    independent. There are none with fewer than two specimens.

    Args:
        images: the scores of the images, in any order.
        classes: the metrics of the pixels' patterns in the same images, if the method predicts patterns.
    """
    pooled = sum((image.counts for image in images), PixelCounts()).ratios()
    seg = [image.jaccards for image in images]
    instance_seg = [image.instance_jaccards for image in images]
    values = dataclasses.asdict(pooled) | {"SEG": _mean_of(seg), "SEG_instances": _mean_of(instance_seg)}
    specimens = _specimens(images)
    without = _without_each(specimens)
    estimates = {
        name: Estimate(value=value, ci95=jackknife_interval(value, without[name])) for name, value in values.items()
    }
    per_image = np.array([image.counts.ratios().Dice for image in images], np.float64)
    return SegmentationMetrics(
        **estimates,
        pixel_accuracy=pooled.AC,
        Dice_mean_per_image=exact_mean(per_image),
        Dice_per_pattern=_dice_per_pattern(images),
        num_images=len(images),
        num_specimens=len(specimens),
        num_objects=sum(jaccards.size for jaccards in seg),
        num_instances=sum(jaccards.size for jaccards in instance_seg),
        ci_method=JACKKNIFE,
        classes=classes,
    )


def _mean_of(parts: Sequence[np.ndarray]) -> float | None:
    return exact_mean(_joined(parts))


def _joined(parts: Sequence[np.ndarray]) -> Float[np.ndarray, " values"]:
    return np.concatenate([np.zeros(0), *parts])


def _specimens(images: Sequence[ImageScore]) -> list[list[ImageScore]]:
    """The images of each specimen; the order of the specimens does not depend on that of the images."""
    groups = group_by(images, lambda image: image.specimen)
    return [groups[specimen] for specimen in sorted(groups, key=repr)]


def _without_each(specimens: Sequence[Sequence[ImageScore]]) -> dict[str, Float[np.ndarray, " specimens"]]:
    """Each metric of all specimens except one, for each specimen in turn."""
    counted = [dataclasses.astuple(sum((image.counts for image in images), PixelCounts())) for images in specimens]
    counts = np.reshape(counted, (-1, 4)).astype(np.int64)
    seg = [[image.jaccards for image in images] for images in specimens]
    instance_seg = [[image.instance_jaccards for image in images] for images in specimens]
    return pixel_ratios(counts.sum(0) - counts) | {
        "SEG": _means_without_each(seg),
        "SEG_instances": _means_without_each(instance_seg),
    }


def _means_without_each(specimens: Sequence[Sequence[np.ndarray]]) -> Float[np.ndarray, " specimens"]:
    """The mean over the values of all specimens except one, for each specimen in turn."""
    values = [_joined(parts) for parts in specimens]
    sums = np.reshape([(math.fsum(part), part.size) for part in values], (-1, 2)).astype(np.float64)
    total, number = (sums.sum(0) - sums).T
    return ratio(total, number)


def _dice_per_pattern(images: Sequence[ImageScore]) -> dict[str, float | None]:
    groups = group_by(images, lambda image: image.pattern)
    counts = {name: sum((image.counts for image in group), PixelCounts()) for name, group in sorted(groups.items())}
    return {name: pooled.ratios().Dice for name, pooled in counts.items()}
