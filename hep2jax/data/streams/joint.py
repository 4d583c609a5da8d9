"""The training stream of `joint`: crops of fields with their masks, the pattern and the intensity of their specimen."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.streams.fields import Batch, FieldStream

GRADES = ("intermediate", "positive")
"""The two intensities that are told apart, the lower first (I3A and MIVIA); any other word is not known."""


def grade_of(intensity: str) -> int:
    """Index in `GRADES`; -1 where it is not known."""
    return GRADES.index(intensity) if intensity in GRADES else -1


class JointStream(FieldStream):
    """Makes the batches of `FieldStream` and, for every row,

    patterns  int32 [rows]   of the crop's specimen, also where the crop holds no cell
    grades    int32 [rows]   see `grade_of`
    """

    def __init__(
        self, config: Config, fields: FieldSet, indices: Sequence[int], *, rows: meshes.Rows = meshes.ALL_ROWS
    ) -> None:
        super().__init__(config, fields, indices, rows=rows)
        self._patterns = np.array([field.pattern for field in self._fields], np.int32)
        self._grades = np.array([grade_of(field.intensity) for field in self._fields], np.int32)

    @override
    def frequencies(self) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern in the crops' specimens."""
        return np.bincount(self._patterns, self._sampler.shares, minlength=self._num_patterns)

    @override
    def batch(self, step: int) -> Batch:
        rows = self._draw_rows(step)
        chosen = [row.field for row in rows]
        return self._make(rows) | {"patterns": self._patterns[chosen], "grades": self._grades[chosen]}
