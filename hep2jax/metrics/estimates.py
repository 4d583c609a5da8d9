"""Values of metrics with their 95 % intervals, and the arithmetic that all metrics share."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Interval(NamedTuple):
    """A 95 % interval, `low` <= `high`."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The value of a metric, and its 95 % interval."""

    value: float | None
    """None if the metric is undefined (0/0)."""
    ci95: Interval | None = None
    """None if there are too few specimens for an interval. The record that holds the estimate names the method."""

    def __float__(self) -> float:
        """Return the value.

        Raises:
            ValueError: the metric is undefined.
        """
        if self.value is None:
            raise ValueError("the metric is undefined: there was nothing to measure it on")
        return self.value

    def __str__(self) -> str:
        """Value and interval, such as `0.912 [0.880, 0.937]`, or `undefined`."""
        if self.value is None:
            return "undefined"
        return f"{self.value:.3f}" + (f" [{self.ci95.low:.3f}, {self.ci95.high:.3f}]" if self.ci95 else "")


def estimates_of(record: "DataclassInstance") -> dict[str, Estimate]:
    """The fields of a record that are estimates, by name."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, Estimate)}


def defined_values(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """The values of those estimates that are defined, by name."""
    return {name: estimate.value for name, estimate in estimates.items() if estimate.value is not None}


def ratio(numerator: Any, denominator: Any, undefined: float = math.nan) -> Float[np.ndarray, "*batch"]:
    """The quotient of arrays or numbers, element by element, in float64; `undefined` where the denominator is 0."""
    positive = np.asarray(denominator) > 0
    return np.where(positive, np.asarray(numerator, np.float64) / np.where(positive, denominator, 1), undefined)


def exact_mean(values: Float[np.ndarray, " values"]) -> float | None:
    """The mean, or None without values. The sum is exact, so the order of the values does not change the result."""
    return math.fsum(values) / values.size if values.size else None


def finite_or_none(value: Any) -> float | None:
    """A number as a float, or None if it is NaN or infinite, because JSON has neither."""
    return float(value) if np.isfinite(value) else None
