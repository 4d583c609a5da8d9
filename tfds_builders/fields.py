"""Code shared by the builders of fields: the features of one field of a specimen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

KINDS = ("cell", "mitotic_cell", "artefact")
"""Kinds of annotated objects, in the order of their labels."""
VOID = 255
"""Value of pixels in class masks that are neither trained on nor measured, such as those of artefacts."""


def features(patterns: Sequence[str] | None, intensities: Sequence[str], *, channels: int = 1) -> dict[str, Any]:
    """TFDS features of a field: the image, its objects, and the labels of its specimen.

    `instance_mask` is 0 on background and k on object k; `class_mask` is 0 on background, 1 + i on pattern i and
    `VOID` on pixels that do not count. `patterns` is None if only a build finds them out.
    """
    return {
        "image": tfds.features.Image(shape=(None, None, channels), dtype=np.uint8, encoding_format="png"),
        "instance_mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
        "class_mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
        "pattern": tfds.features.ClassLabel(names=patterns),
        "intensity": tfds.features.ClassLabel(names=intensities),
        "specimen_id": tfds.features.Text(),
        "field": np.int32,
        "objects": tfds.features.Sequence({"instance": np.int32, "kind": tfds.features.ClassLabel(names=KINDS)}),
    }
