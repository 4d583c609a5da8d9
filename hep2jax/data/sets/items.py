"""Examples as protocols see them: whose they are, not what they look like."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One example (a cell or a field) as protocols see it."""

    identifier: str
    """Unique within the set where the set has ids ("00001" of a cell, "s01-0" of a field); lists name it."""
    specimen: str
    """Empty where the set's specimen ids are lost."""
    group: str
    """What must stay on one side: the specimen, or one name for specimens that repeat each other pixel for pixel;
    empty where unknown."""
    pattern: int
    """Index of the class; of several, that of the one which fewest examples of the set have; of none, the number of
    classes."""
    split: str
    """The data set's own split: train, validation, test."""
    further: tuple[int, ...] = ()
    """The other patterns of an example with several."""
    folds: tuple[int, ...] = ()
    """Published folds: for fold k, 0 train, 1 test, -1 not said."""

    @property
    def patterns(self) -> tuple[int, ...]:
        """All of them, `pattern` first."""
        return (self.pattern, *self.further)


def identifier_key(identifier: str) -> tuple[bool, int, str]:
    """For comparing and ordering ids: integers by value ("00012" equals "12"), before all other ids by letters."""
    text = identifier.strip()
    whole = text.isascii() and text.isdecimal()
    return (not whole, int(text) if whole else 0, "" if whole else text)


def group_specimens(pictures: Iterable[tuple[str, np.ndarray | str]]) -> dict[str, str]:
    """Specimens that share a picture, pixel for pixel, are one group: {specimen: name of its group}.

    Published copies repeat a whole specimen under another number; a split between the two would leak. The unknown
    specimen "" stays "".

    Args:
        pictures: of cells, of fields or of both, or their fingerprints, each with its specimen.
    """
    group: dict[str, str] = {}
    first: dict[str, str] = {}
    for specimen, picture in pictures:
        group.setdefault(specimen, specimen)
        if not specimen:
            continue
        old, new = group[specimen], group[first.setdefault(fingerprint(picture), specimen)]
        if old != new:
            group.update({name: min(old, new) for name, current in group.items() if current in (old, new)})
    return group


def units(items: Iterable[Item]) -> list[str]:
    """The name of what must stay on one side, for each item: its group, else its specimen; empty where unknown.

    Raises:
        UsageError: a specimen is in two groups.
    """
    items = tuple(items)
    group_of: dict[str, str] = {}
    for item in items:
        if item.specimen and item.group and group_of.setdefault(item.specimen, item.group) != item.group:
            raise UsageError(
                f"specimen {item.specimen} is in two groups, {group_of[item.specimen]} and {item.group}: "
                "a specimen must have one group"
            )
    return [item.group or group_of.get(item.specimen, item.specimen) for item in items]


def specimens(items: Iterable[Item]) -> list[str]:
    """The specimen of each item, its group where only that is known; empty where neither is."""
    return [item.specimen or item.group for item in items]


def unique_keys(items: Sequence[Item], reader: str) -> list[tuple[bool, int, str]]:
    """`identifier_key` of each item, for a `reader` (named in the message) which needs ids that tell items apart.

    Raises:
        UsageError: an id is empty or two items share one.
    """
    keys: dict[tuple[bool, int, str], None] = {}
    for item in items:
        key = identifier_key(item.identifier)
        if not item.identifier.strip() or key in keys:
            what = f"id {item.identifier} stands for two examples" if item.identifier.strip() else "one has none"
            raise UsageError(f"{reader} needs an id of its own for every example: {what}")
        keys[key] = None
    return list(keys)
