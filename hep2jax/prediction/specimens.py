"""Which images belong to one specimen: a table of the user."""

import collections
import csv
import os
import pathlib
from collections.abc import Sequence

from hep2jax.errors import UsageError, one_line

_COLUMNS = ("image", "specimen")
_MAX_BYTES = 100_000_000


def read(table: str, paths: Sequence[str]) -> list[str | None]:
    """The specimen of each image, None for images that the table does not name.

    Args:
        table: a CSV file with the columns `image` (a path, also relative to the table's folder, or the name of a file)
            and `specimen`.
        paths: the images.

    Raises:
        UsageError: the table cannot be read, or names an image twice, one that is not among these, several at once, or
            no specimen.
    """
    numbers = _numbers(paths, os.path.dirname(table))
    specimens: list[str | None] = [None] * len(paths)
    for line, (image, specimen) in _rows(table):
        where = f"--specimens={table}: line {line}: "
        found = numbers.get(image, [])
        if len(found) != 1:
            reason = f"{len(found)} of the images have this name" if found else "is none of the images"
            raise UsageError(f"{where}'{image}': {reason}; write its path as --images gives it")
        if specimens[found[0]] is not None:
            raise UsageError(f"{where}'{image}' was named before")
        specimens[found[0]] = specimen
    return specimens


def _numbers(paths: Sequence[str], folder: str) -> dict[str, list[int]]:
    """The numbers of the images that go by a name. A path is one file, even where others have the same name."""
    by_name, by_path = collections.defaultdict(list), {}
    for number, path in enumerate(paths):
        by_name[pathlib.Path(path).name].append(number)
        for form in (os.path.relpath(path, folder or os.curdir), os.path.abspath(path), os.path.normpath(path), path):
            by_path[form] = [number]
    return by_name | by_path


def _rows(table: str) -> list[tuple[int, tuple[str, str]]]:
    """The image and the specimen of each row, with the number of its line."""
    try:
        if os.path.getsize(table) > _MAX_BYTES:
            raise UsageError(f"--specimens={table}: has more than {_MAX_BYTES // 10**6} MB")
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if missing := set(_COLUMNS) - set(reader.fieldnames or ()):
                raise UsageError(f"--specimens={table}: has no column {' and no column '.join(sorted(missing))}")
            rows = [(reader.line_num, (_cell(row, "image"), _cell(row, "specimen"))) for row in reader]
    except (OSError, csv.Error) as error:
        raise UsageError(f"--specimens={table}: cannot be read ({one_line(error)})") from error
    if unnamed := next((line for line, (image, specimen) in rows if not (image and specimen)), None):
        raise UsageError(f"--specimens={table}: line {unnamed}: names no image or no specimen")
    return rows


def _cell(row: dict[str, str | None], column: str) -> str:
    return (row[column] or "").strip()
