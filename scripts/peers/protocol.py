"""File formats shared by `scripts.gpu_report` and its PyTorch processes; imports neither framework."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

LOCK = "device.lock"
"""Lock file that a process must hold while it measures times on the card."""


def save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays; the file appears under its name only when it is complete."""
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, **arrays)  # pyright: ignore[reportArgumentType]
    scratch.rename(path)


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the arrays that `save_arrays` wrote."""
    with np.load(path) as file:
        return dict(file)


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert arrays by path, such as `block/kernel`, to nested dictionaries."""
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        *modules, last = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[last] = value
    return tree
