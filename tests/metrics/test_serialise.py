"""Records of metrics as JSON: every form of a field, and the keys that files have always had."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from hep2jax import metrics
from hep2jax.metrics import Estimate, Interval
from hep2jax.metrics.serialise import INLINE, OMIT_EMPTY, to_dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    aca: Estimate
    mca: Estimate
    confusion: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    top: Part = dataclasses.field(metadata=INLINE)
    absent: Part | None = dataclasses.field(default=None, metadata=INLINE)
    parts: Mapping[str, Part]
    unknown: int | None
    named: Mapping[str, Part] = dataclasses.field(metadata=OMIT_EMPTY)
    last: Estimate


def test_every_form_of_a_field():
    aca, mca = Estimate(value=0.5, ci95=Interval(0.25, 0.75)), Estimate(value=None)
    part = Part(aca=aca, mca=mca, confusion=((1, 0), (2, 3)))
    entries = {"aca": 0.5, "mca": None, "aca_ci95": [0.25, 0.75], "mca_ci95": None, "confusion": [[1, 0], [2, 3]]}
    made = to_dict(Owner(top=part, parts={"a": part}, unknown=None, named={}, last=Estimate(value=1.0)))
    assert made == entries | {"parts": {"a": entries}, "unknown": None, "last": 1.0, "last_ci95": None}
    assert list(made)[:5] == list(entries)
    assert json.loads(json.dumps(made)) == made
    assert "named" in to_dict(Owner(top=part, parts={}, unknown=3, named={"b": part}, last=Estimate(value=1.0)))


def test_the_keys_of_a_classification():
    section = to_dict(metrics.classification_metrics([0, 1], [0, 0], "ab", ("x", "y")))
    figures = ["aca", "mca", "aca_ci95", "mca_ci95"]
    counts = ["num_examples", "num_specimens", "num_undecided"]
    assert list(section) == [*figures, "ci_method", "per_class", "confusion", "classes", *counts]
    assert section["per_class"]["y"] == {"recall": 0.0, "precision": None, "support": 1}
    assert section["aca"] == section["mca"] == 0.5
    assert type(section["aca_ci95"]) is list


def test_the_keys_of_pixels_and_objects():
    mask = np.eye(4, dtype=bool)
    image = metrics.score_image("a", "golgi", mask, mask, mask.astype(np.int32), np.ones((4, 4), bool))
    section = to_dict(metrics.segmentation_metrics([image]))
    values = ["SE", "SP", "JA", "AC", "Dice", "SEG", "SEG_instances"]
    further = ["pixel_accuracy", "Dice_mean_per_image", "Dice_per_pattern"]
    counts = ["num_images", "num_specimens", "num_objects", "num_instances"]
    assert list(section) == [*values, *(f"{name}_ci95" for name in values), *further, *counts, "ci_method"]
    classes = metrics.class_pixel_metrics(np.eye(2, dtype=np.int64), ("golgi",))
    patterns = to_dict(metrics.segmentation_metrics([image], classes))["classes"]
    assert list(patterns) == ["mean_class_iou", "iou", "pattern_accuracy", "confusion"]


def test_the_keys_of_several_patterns():
    section = to_dict(metrics.multilabel_metrics([[1, 0]], [[0.9, 0.2]], "a", ("x", "y")))
    values = ["mAP", "f1_micro", "f1_macro", "exact_match", "hamming"]
    rest = ["per_class", "classes", "num_examples", "num_specimens", "threshold", "ci_method"]
    assert list(section) == [*values, *(f"{name}_ci95" for name in values), *rest]
    assert set(section["per_class"]["y"]) == {"average_precision", "f1", "recall", "precision", "support"}
