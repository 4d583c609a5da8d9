"""What the report shows of a kind of reading; each task says it of itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hep2jax.report.markup import Html


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyMetrics:
    """Metrics at the head of a split, one tile each."""

    prefix: str
    """In front of the name of the metric, such as `Specimens, `."""
    section: str | None = None
    """Section of the split that holds them; None: its top."""
    names: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """A panel with a confusion matrix and the rates of each class."""

    title: str
    unit: str
    """What is counted, in the singular."""
    section: str | None = None
    """As in `KeyMetrics`."""
    of_patterns: bool = True
    """False: the classes are no patterns, so that they carry no pattern's colour."""


class Pictures(Protocol):
    """Draws the examples of a split."""

    def prepare(self, items: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """What is drawn of each split."""
        ...

    def names(self, prepared: Any) -> list[str]:
        """The patterns that occur."""
        ...

    def atlas(self, prepared: Any, classes: Sequence[str]) -> Html:
        """A strip with one picture for each pattern."""
        ...

    def gallery(self, prepared: Any, classes: Sequence[str], section: Mapping[str, Any]) -> Html:
        """The examples, with what is measured of the split at hand."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The chapter of a split."""

    unit: str
    """What an example is, in the singular."""
    key_metrics: Sequence[KeyMetrics]
    classifications: Sequence[Classification]
    pictures: Pictures
