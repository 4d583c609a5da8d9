"""Metrics of an evaluation, computed on the host: integer counts first, one division in float64 at the end.

Counts add over images, tiles and processes, so no metric depends on how the evaluation was batched. Functions return
frozen records, which `serialise.to_dict` turns into the form of `report/metrics.json`. Undefined values (0/0) are NaN
inside arrays and None in records, because JSON has no NaN.
"""

from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics
from hep2jax.metrics.estimates import Estimate, Interval
from hep2jax.metrics.multilabel import MultilabelMetrics, multilabel_metrics
from hep2jax.metrics.objects import connected_objects, seg_score
from hep2jax.metrics.pixels import (
    VOID,
    ClassPixelMetrics,
    PixelCounts,
    PixelRatios,
    class_pixel_metrics,
    count_classes,
    count_pixels,
    pixel_ratios,
)
from hep2jax.metrics.segmentation import ImageScore, SegmentationMetrics, score_image, segmentation_metrics
from hep2jax.metrics.serialise import to_dict

__all__ = [
    "VOID",
    "ClassPixelMetrics",
    "ClassificationMetrics",
    "Estimate",
    "ImageScore",
    "Interval",
    "MultilabelMetrics",
    "PixelCounts",
    "PixelRatios",
    "SegmentationMetrics",
    "class_pixel_metrics",
    "classification_metrics",
    "connected_objects",
    "count_classes",
    "count_pixels",
    "multilabel_metrics",
    "pixel_ratios",
    "score_image",
    "seg_score",
    "segmentation_metrics",
    "to_dict",
]
