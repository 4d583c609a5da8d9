"""Grouping of cells, fields and images by their specimen, and a few of many."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from jaxtyping import Int

Value = TypeVar("Value")
Key = TypeVar("Key", bound=Hashable)


def group_by(values: Iterable[Value], key: Callable[[Value], Key]) -> dict[Key, list[Value]]:
    """The values of each key in their given order; the keys are in the order of their first appearance."""
    groups: dict[Key, list[Value]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def evenly_spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most `most` of the values, at equal intervals from the first to the last, in order."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


def group_indices(groups: Iterable[Hashable], num_items: int) -> tuple[list[Hashable], Int[np.ndarray, " items"]]:
    """The distinct specimen ids in a fixed order, and the position of each item's id among them, int64.

    Raises:
        ValueError: there are more or fewer ids than items.
    """
    keys = [_plain(key) for key in groups]
    if len(keys) != num_items:
        raise ValueError(f"{num_items} items but {len(keys)} specimen ids")
    distinct = sorted(set(keys), key=repr)
    position = {key: index for index, key in enumerate(distinct)}
    return distinct, np.array([position[key] for key in keys], np.int64)


def _plain(key: Any) -> Any:
    # Ids are ordered by their `repr`, which differs between numbers of NumPy and of Python.
    return cast(Any, key).item() if isinstance(key, np.generic) else key
