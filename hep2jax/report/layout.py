"""Describes the parts of the report for a kind of task; each task provides its own layout."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hep2jax.report.markup import Html


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyMetrics:
    """Metrics at the top of a split, one tile each."""

    prefix: str
    """Text before the name of the metric, such as `Specimens, `."""
    section: str | None = None
    """Section of the split's metrics that contains them; None: the top level."""
    names: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """A panel with a confusion matrix and the rates of each class."""

    title: str
    unit: str
    """Word for what is counted, in the singular."""
    section: str | None = None
    """See `KeyMetrics.section`."""
    of_patterns: bool = True
    """False: the classes are not patterns and are shown without the colours of patterns."""


class Pictures(Protocol):
    """Draws the examples of a split."""

    def prepare(self, items: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Prepare the examples of each split for drawing."""
        ...

    def names(self, prepared: Any) -> list[str]:
        """The patterns that occur in the prepared examples."""
        ...

    def atlas(self, prepared: Any, classes: Sequence[str]) -> Html:
        """A strip with one picture for each pattern."""
        ...

    def gallery(self, prepared: Any, classes: Sequence[str], section: Mapping[str, Any]) -> Html:
        """The examples; `section` contains the metrics of the split."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts of the chapter of a split."""

    unit: str
    """Word for an example, in the singular."""
    key_metrics: Sequence[KeyMetrics]
    classifications: Sequence[Classification]
    pictures: Pictures
