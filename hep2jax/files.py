"""Files that appear complete or not at all, and what a full disk looks like."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "Not enough disk space")

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
_REFUSED_WORDS = ("Permission denied", "Read-only file system", "Input/output error")


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    The folder is created where it is missing. After an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The number of the process keeps two of them from writing to one unfinished file.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text, in UTF-8."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON; a number that is not finite is an error."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Read JSON; raises ValueError, with the file and the reason in one line, for anything else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no text, numbers too long, or nested too deeply
        raise ValueError(f"{path}: cannot be read as JSON ({error}); the file is damaged") from error


def kept(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object that an earlier run kept; empty if there is none or it is damaged, so that it is made again."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def kept_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a npz file that an earlier run kept; empty if there is none or it is damaged. Runs no pickles."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # damaged archives make NumPy and zipfile raise anything
        return {}


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, of any library, says that no space is left for a file."""
    return getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS)


def refusal(error: BaseException) -> str | None:
    """What to do about an error, of any library, that says that a file could not be written; None for any other."""
    if is_disk_full(error):
        return "no space left on the device: free some"
    if getattr(error, "errno", None) in _REFUSED or any(words in str(error) for words in _REFUSED_WORDS):
        return "a file could not be written: make its folder writable"
    return None
