"""Readers that are fitted in one piece: their arrays in the work directory, as the checkpoint of step 1."""

import pathlib
import zipfile
from typing import Any

import numpy as np

from hep2jax import files
from hep2jax.errors import RunError, UsageError
from hep2jax.training.state import Tree, leaves_by_path

STEP = 1
PARAMETERS, ALONG = "parameters.npz", "along.npz"


def _folder(directory: pathlib.Path) -> pathlib.Path:
    return directory / "checkpoints" / str(STEP)


def is_fitted(directory: pathlib.Path) -> bool:
    """Whether the work directory holds a fitted reader."""
    return (_folder(directory) / PARAMETERS).exists()


def save(directory: pathlib.Path, parameters: Tree, along: Tree) -> None:
    """Write the parameters, and what another fit may take from here. The parameters come last: they say it is done."""
    for name, tree in ((ALONG, along), (PARAMETERS, parameters)):
        arrays: dict[str, Any] = {path: np.asarray(leaf) for path, leaf in leaves_by_path(tree).items()}
        with files.replaced(_folder(directory) / name) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)


def load(directory: pathlib.Path, name: str = PARAMETERS) -> Tree:
    """The arrays that `save` wrote, nested in dictionaries as they were.

    Raises:
        UsageError: there are none.
    """
    path = _folder(directory) / name
    if not path.exists():
        raise UsageError(f"{directory}: holds no fitted reader; fit one there first (model.name=fisher)")
    tree: Tree = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                *parents, leaf = key.split("/")
                branch = tree
                for parent in parents:
                    branch = branch.setdefault(parent, {})
                branch[leaf] = arrays[key]  # compared with its checksum
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}); remove it, and the same training command fits it again"
        ) from error
    return tree
