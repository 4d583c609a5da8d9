"""What identifies data and settings: one digest of everything that they consist of."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def fingerprint(*values: Any) -> str:
    """SHA-256 of the values, as hexadecimal digits; equal for equal values, in every process and on every machine.

    Arrays count with dtype, shape and elements, dataclasses and mappings with names and values, sequences with their
    order (tuples and lists alike), a path with the content of its file, everything else as its `repr`.

    Raises:
        OSError: a path leads to no file that can be read.
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
