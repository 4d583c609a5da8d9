"""Records of metrics as dictionaries for JSON, in the form of `report/metrics.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from hep2jax.metrics.estimates import Estimate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

INLINE = {"inline": True}
"""Metadata of a field that holds a record or None: the record's entries are placed among those of its owner."""
OMIT_EMPTY = {"omit_empty": True}
"""Metadata of a field that has no entry if it is None or empty."""


def to_dict(record: "DataclassInstance") -> dict[str, Any]:
    """A record of metrics as a dictionary for JSON, with an entry for each field under the field's name.

    An `Estimate` has two entries, `<name>` for its value and `<name>_ci95` for its interval [low, high]; the intervals
    of adjacent estimates follow all their values. Records become dictionaries, and sequences become lists.
    """
    entries: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Estimate):
            entries[field.name] = value.value
            intervals[f"{field.name}_ci95"] = _plain(value.ci95)
            continue
        entries |= intervals
        intervals = {}
        entries |= _entries(field, value)
    return entries | intervals


def _entries(field: "dataclasses.Field[Any]", value: Any) -> dict[str, Any]:
    if field.metadata.get("inline"):
        return {} if value is None else to_dict(value)
    if field.metadata.get("omit_empty") and not value:
        return {}
    return {field.name: _plain(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in cast(Mapping[str, Any], value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in cast(Sequence[Any], value)]
    return value
