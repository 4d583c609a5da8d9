"""Records of metrics in which one value matters."""

import dataclasses

from hep2jax.metrics import (
    ClassificationMetrics,
    Estimate,
    SegmentationMetrics,
    classification_metrics,
    segmentation_metrics,
)
from hep2jax.tasks.field_results import FieldMetrics


def classification(mca: float) -> ClassificationMetrics:
    return dataclasses.replace(classification_metrics([0], [0], "a", ("x", "y")), mca=Estimate(value=mca))


def segmentation(dice: float) -> SegmentationMetrics:
    return dataclasses.replace(segmentation_metrics([]), Dice=Estimate(value=dice))


def of_fields(dice: float, specimen_mca: float) -> FieldMetrics:
    return FieldMetrics(
        images=classification(0.0), pixel=segmentation(dice), specimen=classification(specimen_mca), baselines={}
    )
