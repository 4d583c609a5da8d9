"""Split lists: csv files that name the examples of each side."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence

from hep2jax.data.sets.items import Item, identifier_key, unique_keys
from hep2jax.errors import UsageError

FILES = {"train": "training.csv", "validation": "validation.csv", "test": "test.csv"}

_ALIASES = {"numem": "nuclear_membrane", "centromeric": "centromere", "cytoplasmic": "cytoplasmatic"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """The side of each item (train, validation, test; empty: in no list), and what to say about the lists."""

    sides: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    identifier: str
    class_name: str  # empty where the list has no classes


def assign(folder: str, name: str, items: Sequence[Item], classes: Sequence[str] = ()) -> Assignment:
    """Read the lists in `folder` and find their ids in the set `name`.

    A list has a header (`Image ID,Image class`) or none; ids come first, padded with zeros or not; a second column is
    the class. Ids that the set does not have are counted and said. validation.csv and test.csv may be missing, and
    training.csv where only the other sides are measured.

    Args:
        folder: where training.csv, validation.csv and test.csv are.
        name: of the data set, for messages.
        items: the examples; their ids must tell them apart.
        classes: pattern names of the set; empty: classes in lists are not compared.

    Raises:
        UsageError: no usable folder or list, an id in two lists, a class that is not the set's, or a training list
            without any id of the set.
    """
    positions = {key: i for i, key in enumerate(unique_keys(items, f"data.protocol=holdout on {name}"))}
    paths = _paths(folder)
    sides = [""] * len(items)
    notes, seen = [], {}
    for side, path in paths.items():
        rows = _read(path, positions)
        _check_once(path, rows, seen)
        found = {row: positions[key] for row in rows if (key := identifier_key(row.identifier)) in positions}
        for row, position in found.items():
            _check_class(path, row, items[position], name, classes)
            sides[position] = side
        notes += _absent(path, len(rows), len(found), name)
    notes += [f"{file} is not there" for side, file in FILES.items() if side not in paths]
    if left_out := sides.count(""):
        notes.append(f"{left_out:,} of {len(items):,} ids of {name} are in no list and left out")
    return Assignment(sides=tuple(sides), notes=tuple(notes))


def _paths(folder: str) -> dict[str, pathlib.Path]:
    root = pathlib.Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise UsageError(f"data.split_lists='{folder}': there is no such folder; name the one with training.csv")
    paths = {side: root / file for side, file in FILES.items() if (root / file).exists()}
    if not paths:
        raise UsageError(f"data.split_lists='{folder}': holds none of {', '.join(FILES.values())}")
    return paths


def _read(path: pathlib.Path, known: dict) -> list[_Row]:
    """Rows without header, blank lines and repeats, in the order of the file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        table = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a csv list ({error})") from error
    table = [row for row in table if any(row)]
    class_column = 1
    # A header names its columns in words; ids have digits, or else the set knows them.
    if table and identifier_key(table[0][0]) not in known and not any(c.isdigit() for c in table[0][0]):
        header = [cell.lower() for cell in table.pop(0)]
        class_column = next((i for i, cell in enumerate(header) if "class" in cell or "pattern" in cell), len(header))
    rows = {}
    for row in table:
        class_name = row[class_column] if class_column < len(row) else ""
        rows.setdefault((identifier_key(row[0]), class_name), _Row(row[0], class_name))
    return list(rows.values())


def _check_once(path: pathlib.Path, rows: list[_Row], seen: dict) -> None:
    """Enter the ids of a list in `seen` ({key of id: (file, class)}); an id may stand in one list, with one class."""
    for row in rows:
        file, class_name = seen.setdefault(identifier_key(row.identifier), (path.name, row.class_name))
        if file != path.name:
            raise UsageError(f"{path}: id {row.identifier} is in {file} too; an id may be in one list only")
        if class_name != row.class_name:
            raise UsageError(f"{path}: id {row.identifier} is listed both as '{class_name}' and '{row.class_name}'")


def _check_class(path: pathlib.Path, row: _Row, item: Item, name: str, classes: Sequence[str]) -> None:
    if not classes or not row.class_name:
        return
    truth = [classes[pattern] for pattern in item.patterns if pattern < len(classes)]
    if _plain(row.class_name) not in map(_plain, truth):
        said = f"has it as '{' + '.join(truth)}'" if truth else "has no pattern for it"
        raise UsageError(f"{path}: id {row.identifier} is listed as '{row.class_name}', but {name} {said}")


def _plain(class_name: str) -> str:
    """Class name in the spelling that names are compared in."""
    plain = re.sub(r"[\s_-]+", "_", class_name.strip().lower())
    return _ALIASES.get(plain, plain)


def _absent(path: pathlib.Path, listed: int, found: int, name: str) -> list[str]:
    if path.name == FILES["train"] and not found:
        raise UsageError(
            f"{path}: none of its {listed:,} ids is in {name}; to measure only, give a folder without training.csv"
        )
    missing = listed - found
    whole = ", so that this side is empty" if not found else ""
    return [f"{missing:,} ids of {path.name} are not in the data{whole}"] if missing or whole else []
