"""Crops of fields with their class masks, and the pattern and the intensity of their specimen."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int
from typing_extensions import override

from hep2jax.config import Config
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Batch

GRADES = ("intermediate", "positive")
"""The two grades of intensity (I3A and MIVIA), the lower first; any other intensity counts as unknown."""


def grade_of(intensity: str) -> int:
    """Index in `GRADES`; -1 for an unknown intensity."""
    return GRADES.index(intensity) if intensity in GRADES else -1


class JointPlan(FieldPlan):
    """The crops of `FieldPlan`. In addition, batches hold

    patterns  int32 [rows]   pattern of the crop's specimen, even if the crop holds no cell
    grades    int32 [rows]   grade of the specimen's intensity, see `grade_of`
    """

    def __init__(self, config: Config, fields: FieldSet, indices: Sequence[int]) -> None:
        super().__init__(config, fields, indices)
        chosen = [fields.fields[i] for i in indices]
        self._patterns = np.array([field.pattern for field in chosen], np.int32)
        self._grades = np.array([grade_of(field.intensity) for field in chosen], np.int32)

    @override
    def labels(self, chosen: Int[np.ndarray, " example"]) -> Batch:
        return {"patterns": self._patterns[chosen], "grades": self._grades[chosen]}

    @override
    def frequencies(self, shares: Float64[np.ndarray, " example"]) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern among the specimens of the crops."""
        return np.bincount(self._patterns, shares, minlength=self._num_patterns)
