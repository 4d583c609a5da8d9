"""Fingerprints that identify data and settings: one digest of all their contents."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def fingerprint(*values: Any) -> str:
    """SHA-256 of the values, as hexadecimal digits; equal for equal values, in every process and on every machine.

    Arrays contribute their dtype, shape and elements; dataclasses and mappings the names and values of their fields or
    entries; sequences their elements in order (tuples and lists alike); paths the content of their file; everything
    else its `repr`. Renaming a field of a dataclass therefore changes the fingerprints of its instances.

    Raises:
        OSError: the file of a path cannot be read.
    """
    digest = hashlib.sha256()
    _add(digest, values)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        value = sorted((str(name), element) for name, element in value.items())
    if isinstance(value, pathlib.PurePath):
        value = hashlib.sha256(pathlib.Path(value).read_bytes()).hexdigest()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        digest.update(f"{array.dtype} {array.shape}\0".encode() + array.tobytes())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"{len(value)}\0".encode())
        for element in value:
            _add(digest, element)
    else:
        digest.update(f"{value!r}\0".encode())
