"""Split lists: csv files that name the examples of each split."""

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
    """The split of each item (train, validation or test; empty: in no list), and notes on the lists."""

    splits: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    identifier: str
    class_name: str  # empty if the list has no classes


def assign(folder: str, name: str, items: Sequence[Item], classes: Sequence[str] = ()) -> Assignment:
    """Read the lists in `folder` and assign the items of the data set `name` to splits by their ids.

    A list may have a header (`Image ID,Image class`). Its first column holds the ids, with or without leading zeros; a
    second column holds the classes. Ids that are not in the data set are counted in the notes. validation.csv and
    test.csv may be missing; so may training.csv if the network is only evaluated.

    Args:
        folder: the folder with training.csv, validation.csv and test.csv.
        name: name of the data set, for messages.
        items: the examples; their ids must be unique.
        classes: pattern names of the data set; empty: the classes in the lists are not checked.

    Raises:
        UsageError: there is no such folder or no list in it, a list cannot be read, an id is in two lists, a class
            differs from that in the data set, or no id of the training list is in the data set.
    """
    positions = {key: i for i, key in enumerate(unique_keys(items, f"data.protocol=holdout on {name}"))}
    paths = _paths(folder)
    splits = [""] * len(items)
    notes, seen = [], {}
    for split, path in paths.items():
        rows = _read(path, positions)
        _check_once(path, rows, seen)
        row_positions = {row: positions[key] for row in rows if (key := identifier_key(row.identifier)) in positions}
        for row, position in row_positions.items():
            _check_class(path, row, items[position], name, classes)
            splits[position] = split
        notes += _describe_absent_ids(path, len(rows), len(row_positions), name)
    notes += [f"{file} is not there" for split, file in FILES.items() if split not in paths]
    if left_out := splits.count(""):
        notes.append(f"{left_out:,} of {len(items):,} ids of {name} are in no list and left out")
    return Assignment(splits=tuple(splits), notes=tuple(notes))


def _paths(folder: str) -> dict[str, pathlib.Path]:
    root = pathlib.Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise UsageError(f"data.split_lists='{folder}': there is no such folder; name the one with training.csv")
    paths = {split: root / file for split, file in FILES.items() if (root / file).exists()}
    if not paths:
        raise UsageError(f"data.split_lists='{folder}': contains none of {', '.join(FILES.values())}")
    return paths


def _read(path: pathlib.Path, known: dict) -> list[_Row]:
    """The rows without header, blank lines and repetitions, in the order of the file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        table = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a csv list ({error})") from error
    table = [row for row in table if any(row)]
    class_column = 1
    # A row is a header if its first entry has no digit, as ids usually have, and is not an id of the data set.
    if table and identifier_key(table[0][0]) not in known and not any(c.isdigit() for c in table[0][0]):
        header = [cell.lower() for cell in table.pop(0)]
        class_column = next((i for i, cell in enumerate(header) if "class" in cell or "pattern" in cell), len(header))
    rows = {}
    for row in table:
        class_name = row[class_column] if class_column < len(row) else ""
        rows.setdefault((identifier_key(row[0]), class_name), _Row(row[0], class_name))
    return list(rows.values())


def _check_once(path: pathlib.Path, rows: list[_Row], seen: dict) -> None:
    """Record the ids of a list in `seen` ({key of id: (file, class)}); an id may have one list and one class only."""
    for row in rows:
        file, class_name = seen.setdefault(identifier_key(row.identifier), (path.name, row.class_name))
        if file != path.name:
            raise UsageError(f"{path}: id {row.identifier} is also in {file}; an id may be in one list only")
        if class_name != row.class_name:
            raise UsageError(f"{path}: id {row.identifier} is listed both as '{class_name}' and '{row.class_name}'")


def _check_class(path: pathlib.Path, row: _Row, item: Item, name: str, classes: Sequence[str]) -> None:
    if not classes or not row.class_name:
        return
    true_classes = [classes[pattern] for pattern in item.patterns if pattern < len(classes)]
    if _normalise_name(row.class_name) not in map(_normalise_name, true_classes):
        truth = f"is '{' + '.join(true_classes)}'" if true_classes else "has no pattern"
        raise UsageError(f"{path}: id {row.identifier} is listed as '{row.class_name}', but {truth} in {name}")


def _normalise_name(class_name: str) -> str:
    """The spelling of a class name that is used for comparisons."""
    name = re.sub(r"[\s_-]+", "_", class_name.strip().lower())
    return _ALIASES.get(name, name)


def _describe_absent_ids(path: pathlib.Path, num_listed: int, num_present: int, name: str) -> list[str]:
    """A note on the ids of a list that are not in the data set; none if there are none."""
    if path.name == FILES["train"] and not num_present:
        raise UsageError(
            f"{path}: none of its {num_listed:,} ids is in {name}; to evaluate only, give a folder without training.csv"
        )
    num_absent = num_listed - num_present
    consequence = ", so that this side is empty" if not num_present else ""
    if not (num_absent or consequence):
        return []
    return [f"{num_absent:,} ids of {path.name} are not in the data{consequence}"]
