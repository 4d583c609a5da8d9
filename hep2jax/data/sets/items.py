"""Examples as protocols see them: their ids, specimens and patterns, without their pixels."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One example (a cell, a field or an image) as protocols see it.

    The names of these attributes are part of the fingerprints of cells, so renaming one would make work directories of
    earlier runs unusable.
    """

    identifier: str
    """Unique within the data set if that has ids ("00001" for a cell, "s01-0" for a field). Split lists use it."""
    specimen: str
    """Empty if the specimen is not known."""
    group: str
    """What must stay in one split: the specimen, or one name for all specimens that repeat each other pixel for pixel;
    empty if neither is known."""
    pattern: int
    """Index of the class. For an example with several patterns, that of its rarest pattern in the data set; for an
    example without a pattern, the number of classes."""
    split: str
    """The data set's own split: train, validation or test."""
    further: tuple[int, ...] = ()
    """The other patterns of an example with several."""
    folds: tuple[int, ...] = ()
    """Published folds: for fold k, 0 train, 1 test, -1 not given."""

    @property
    def patterns(self) -> tuple[int, ...]:
        """All patterns, `pattern` first."""
        return (self.pattern, *self.further)


_LONGEST_INTEGER = 1000  # digits; Python refuses to convert more than 4300


def identifier_key(identifier: str) -> tuple[bool, int, str]:
    """Key by which ids are compared and sorted: integers by value ("00012" equals "12"), then all others as text."""
    text = identifier.strip()
    is_integer = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_INTEGER
    return (not is_integer, int(text) if is_integer else 0, "" if is_integer else text)


def group_specimens(pictures: Iterable[tuple[str, np.ndarray | str]]) -> dict[str, str]:
    """Group specimens that share a picture, pixel for pixel: {specimen: name of its group}.

    Published data sets repeat complete specimens under another number, and a split between the two would leak. The
    unknown specimen "" keeps the name "".

    Args:
        pictures: specimens with a picture of theirs (of a cell or a field), or with the picture's fingerprint.
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
    """The unit of each item that must stay in one split: its group, otherwise its specimen; empty if neither is known.

    Raises:
        UsageError: a specimen is in two groups.
    """
    items = tuple(items)
    group_of: dict[str, str] = {}
    for item in items:
        if item.specimen and item.group and group_of.setdefault(item.specimen, item.group) != item.group:
            raise UsageError(
                f"specimen {item.specimen} is in two groups, {group_of[item.specimen]} and {item.group}; "
                "a specimen must be in one group"
            )
    return [item.group or group_of.get(item.specimen, item.specimen) for item in items]


def specimens(items: Iterable[Item]) -> list[str]:
    """The specimen of each item, or its group if only that is known; empty if neither is known."""
    return [item.specimen or item.group for item in items]


def unique_keys(items: Sequence[Item], reader: str) -> list[tuple[bool, int, str]]:
    """`identifier_key` of each item, for a `reader` (named in the message) that needs unique ids.

    Raises:
        UsageError: an id is empty, or two items share one.
    """
    keys: dict[tuple[bool, int, str], None] = {}
    for item in items:
        key = identifier_key(item.identifier)
        if not item.identifier.strip() or key in keys:
            problem = f"two examples have the id {item.identifier}" if item.identifier.strip() else "one has no id"
            raise UsageError(f"{reader} needs a unique id for every example, but {problem}")
        keys[key] = None
    return list(keys)
