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
"""The two intensities that are told apart, the lower first (I3A and MIVIA); any other word is not known."""


def grade_of(intensity: str) -> int:
    """Index in `GRADES`; -1 where it is not known."""
    return GRADES.index(intensity) if intensity in GRADES else -1


class JointPlan(FieldPlan):
    """The crops of `FieldPlan` and, for every row,

    patterns  int32 [rows]   of the crop's specimen, also where the crop holds no cell
    grades    int32 [rows]   see `grade_of`
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
        """Share of each pattern in the crops' specimens."""
        return np.bincount(self._patterns, shares, minlength=self._num_patterns)
