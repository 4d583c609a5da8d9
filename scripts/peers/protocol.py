"""What `scripts.gpu_report` and its PyTorch processes agree on; needs neither framework."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

LOCK = "device.lock"
"""Held by whoever times something on the card."""


def save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, the whole file or none of it."""
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, **arrays)  # pyright: ignore[reportArgumentType]
    scratch.rename(path)


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote."""
    with np.load(path) as file:
        return dict(file)


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A tree of dictionaries from arrays by path, `block/kernel`."""
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        *modules, last = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[last] = value
    return tree
