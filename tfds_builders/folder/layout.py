"""The table of a user's folder: its columns, its rows, and every fault of them, each in one line.

This module looks which files there are and decodes no pixels; `pictures` does.
"""

import collections
import csv
import dataclasses
import difflib
import io
import itertools
import pathlib
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from tfds_builders import icap, image_files, tables
from tfds_builders.owner_files import shorten

TABLE = "labels.csv"
SPECIMENS, CELLS = "specimens", "cells"
"""The two kinds of folders: of fields of specimens, and of single cells."""
COLUMNS = ("image", "pattern", "mask", "specimen", "intensity", "split")
NEEDED = {SPECIMENS: ("image", "pattern", "specimen"), CELLS: ("image", "pattern")}
SPLITS = ("train", "validation", "test")
MAX_TABLE_BYTES = 64_000_000
MAX_ROWS = 1_000_000
MAX_PATTERNS = 100

_SPLITS = tables.spellings_of(SPLITS, {"training": "train", "val": "validation", "testing": "test"})
_INTENSITIES = tables.spellings_of(tables.INTENSITIES, {})
_CONSENSUS = {tables.plain(label): label for label in icap.LABELS}
_RESERVED = "none"  # what a specimen without a cell is read as
_LONGEST = 200  # characters of a name
_MAX_NAMES = 6  # in a line

Entry = Callable[[str], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image with its labels."""

    line: int
    """Row of the table, as spreadsheets number it: the header is row 1."""
    name: str
    """The image as the table names it."""
    image: pathlib.Path
    mask: pathlib.Path | None
    pattern: str
    specimen: str
    """Empty if it is not known."""
    intensity: str
    split: str

    @property
    def where(self) -> str:
        """The place of the row, for messages."""
        return f"{TABLE}, row {self.line}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What a table says."""

    rows: tuple[Row, ...]
    """The rows without a fault of their own, in the order of the table."""
    patterns: tuple[str, ...]
    """All patterns, sorted."""
    has_splits: bool
    """Whether there is a column `split`."""
    faults: Sequence[str]
    """What makes the folder useless as it is, one line each."""
    notes: tuple[str, ...]
    """What its user must know, one line each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    columns: Mapping[str, int]
    lines: tuple[tuple[int, list[str]], ...]
    width: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def absence(folder: pathlib.Path) -> str:
    """One line for a directory without a table."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".csv") if folder.is_dir() else []
    others = f"; there is {shorten(found, _MAX_NAMES)}" if found else ""
    what = "it holds no" if folder.is_dir() else "there is no such folder with a"
    return f"folder '{folder}': {what} {TABLE} with the columns image and pattern{others}"


def read_contents(folder: pathlib.Path, kind: str) -> Contents:
    """Read the table of a folder of `SPECIMENS` or `CELLS`.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: the table cannot be read at all.
    """
    table = _read_table(folder, kind)
    faults, rows = list(table.faults), []
    folder = folder.resolve()
    for line, entries in table.lines if table.columns.keys() >= {*NEEDED[kind]} else ():
        if len(entries) != table.width:
            faults.append(f"{TABLE}, row {line}: has {len(entries)} entries instead of {table.width}")
        elif row := _row(line, {name: entries[k] for name, k in table.columns.items()}, folder, kind, faults):
            rows.append(row)
    rows = _with_one_spelling(rows)
    faults += [*_repeated(rows), *(_mixed(rows) if kind == SPECIMENS else ())]
    faults += _faults_of_set(rows, "split" in table.columns) if not faults else ()
    notes = (*table.notes, *_notes(rows, kind, folder))
    patterns = tuple(sorted({row.pattern for row in rows}))
    return Contents(
        rows=tuple(rows),
        patterns=patterns,
        has_splits="split" in table.columns,
        faults=faults,
        notes=notes,
    )


def _read_table(folder: pathlib.Path, kind: str) -> _Table:
    path = folder / TABLE
    if not path.is_file():
        raise FileNotFoundError(absence(folder))
    if not _stays(path, folder.resolve()):
        raise ValueError(f"{path}: is a link that leaves the folder")
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path}: has more than {MAX_TABLE_BYTES // 10**6} MB")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error.reason}); save it as 'CSV UTF-8'") from error
    text = re.sub(r"\A *sep=.\s*\n", "", text.replace("\r\n", "\n").replace("\r", "\n"))  # of spreadsheets
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        stripped = ((number, [entry.strip() for entry in row]) for number, row in enumerate(reader, start=1))
        filled = ((number, row) for number, row in stripped if any(row))
        lines = list(itertools.islice(filled, MAX_ROWS + 2))
    except csv.Error as error:
        raise ValueError(f"{path}: is not a table ({error})") from error
    if len(lines) > MAX_ROWS + 1:
        raise ValueError(f"{path}: has more than {MAX_ROWS} rows")
    if not lines:
        raise ValueError(f"{path}: is empty")
    return _with_columns(lines[0][1], lines[1:], NEEDED[kind])


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: the one that divides the first row into most of the known columns."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    found = {mark: {part.strip(' "').lower() for part in first.split(mark)} & {*COLUMNS} for mark in ",;\t"}
    return max(found, key=lambda mark: len(found[mark]))


def _with_columns(head: Sequence[str], lines: Sequence[tuple[int, list[str]]], needed: Sequence[str]) -> _Table:
    columns: dict[str, int] = {}
    faults, notes = [], []
    names = [name.lower() for name in head]
    absent = [column for column in COLUMNS if column not in names]
    for position, name in enumerate(names):
        shown = _shown(head[position])
        if name in columns:
            faults.append(f"{TABLE}, row 1: two columns are called '{name}'")
        elif name in COLUMNS:
            columns[name] = position
        elif near := difflib.get_close_matches(name[:_LONGEST], absent, n=1, cutoff=0.7):
            faults.append(f"{TABLE}, row 1: unknown column '{shown}': did you mean '{near[0]}'?")
            columns.setdefault(near[0], position)  # so that the faults of its entries are found, too
        elif name:
            notes.append(f"the column '{shown}' is not used; the columns are {', '.join(COLUMNS)}")
    if missing := [name for name in needed if name not in columns]:
        faults.append(f"{TABLE}, row 1: has no column {' and no column '.join(missing)}")
    if not lines:
        faults.append(f"{TABLE}: has no row below its header")
    return _Table(columns=columns, lines=tuple(lines), width=len(head), faults=tuple(faults), notes=tuple(notes))


def _row(line: int, entries: Mapping[str, str], folder: pathlib.Path, kind: str, faults: list[str]) -> Row | None:
    """The row, or None after its faults have been added to `faults`."""
    checks: dict[str, Entry] = {
        "image": lambda entry: _file(folder, entry),
        "mask": lambda entry: _file(folder, entry) if entry else None,
        "pattern": _pattern,
        "specimen": (lambda entry: _name(entry, "specimen")) if kind == SPECIMENS else _specimen_if_known,
        "intensity": lambda entry: _choice(entry or tables.UNKNOWN, _INTENSITIES, "intensity"),
        "split": (lambda entry: _choice(entry, _SPLITS, "split")) if "split" in entries else (lambda _: SPLITS[0]),
    }
    values, before = {}, len(faults)
    for column, check in checks.items():
        try:
            values[column] = check(entries.get(column, ""))
        except ValueError as error:
            faults.append(f"{TABLE}, row {line}: {error}")
    if "image" in values and values["image"] == values.get("mask"):
        faults.append(f"{TABLE}, row {line}: the image is named as its own mask")
    return Row(line=line, name=entries["image"], **values) if len(faults) == before else None


def _file(folder: pathlib.Path, entry: str) -> pathlib.Path:
    """The file that an entry names. `folder` is resolved."""
    shown = _shown(entry)
    relative = pathlib.PurePosixPath(entry.replace("\\", "/"))
    too_long = len(entry) > 1000 or any(len(part.encode()) > 255 for part in relative.parts)  # for file systems
    if not entry:
        raise ValueError("names no image")
    if too_long or not entry.isprintable():
        raise ValueError(f"'{shown}' is not the name of a file")
    if relative.is_absolute() or ".." in relative.parts or re.match(r"[A-Za-z]:", entry):
        raise ValueError(f"'{shown}' is not a path below the folder; write it from there, such as images/a.png")
    path = folder / relative
    if not _stays(path, folder):
        raise ValueError(f"'{shown}' is a link that leads out of the folder or nowhere")
    if path.exists() and not path.is_file():
        raise ValueError(f"'{shown}' is not a regular file")
    if not path.is_file():
        raise ValueError(f"there is no file '{shown}'{_similar(path)}")
    return path


def _stays(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a file is below a resolved folder once all links are followed."""
    try:
        return path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a loop of links
        return False


def _similar(path: pathlib.Path) -> str:
    """Advice on a file beside a missing one whose name differs in case or ending."""
    if not path.parent.is_dir():
        return f" (no folder '{path.parent.name}')"
    stem = path.stem.casefold()
    near = next((other.name for other in path.parent.iterdir() if other.stem.casefold() == stem), "")
    return f"; there is '{near}'" if near else ""


def _shown(entry: str) -> str:
    """The beginning of an entry, in one line."""
    start = entry[:_LONGEST]
    return start if start.isprintable() else ascii(start)[1:-1]


def _name(entry: str, what: str) -> str:
    if not entry:
        raise ValueError(f"names no {what}")
    if len(entry) > _LONGEST or not entry.isprintable():
        raise ValueError(f"'{_shown(entry)}' is not the name of a {what}")
    return entry


def _specimen_if_known(entry: str) -> str:
    return _name(entry, "specimen") if entry else ""


def _pattern(entry: str) -> str:
    """The label as the table of consensus codes writes it, if it is there; otherwise as it is."""
    name = _name(entry, "pattern")
    if name.lower() == _RESERVED:
        raise ValueError(f"the pattern cannot be called '{name}', which means that no cell was found; take 'negative'")
    return _CONSENSUS.get(tables.plain(name), name)


def _choice(entry: str, spellings: Mapping[str, str], what: str) -> str:
    if tables.plain(entry) in spellings:
        return spellings[tables.plain(entry)]
    names = ", ".join(dict.fromkeys(spellings.values()))
    near = difflib.get_close_matches(tables.plain(entry[:_LONGEST]), spellings, n=1, cutoff=0.5)
    advice = f"; did you mean {spellings[near[0]]}?" if near else ""
    raise ValueError(f"the {what} '{_shown(entry)}' is not one of {names}{advice}")


def _with_one_spelling(rows: Sequence[Row]) -> list[Row]:
    """The rows with patterns that differ only in case, blanks, hyphens and underscores written as in the first row."""
    first: dict[str, str] = {}
    written = [first.setdefault(tables.plain(row.pattern) or row.pattern, row.pattern) for row in rows]
    return [dataclasses.replace(row, pattern=pattern) for row, pattern in zip(rows, written, strict=True)]


def _repeated(rows: Sequence[Row]) -> Iterator[str]:
    """Images and masks that two rows name."""
    first: dict[Hashable, Row] = {}
    for row in rows:
        for what, path in (("image", row.image), ("mask", row.mask)):
            if path and (other := first.setdefault((what, path), row)) is not row:
                yield f"{row.where}: the {what} '{path.name}' is that of row {other.line}, too"


def _mixed(rows: Sequence[Row]) -> Iterator[str]:
    """Rows whose pattern is not that of the first row of the same specimen."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.specimen, row)
        if other.pattern != row.pattern:
            yield (
                f"{row.where}: specimen {row.specimen} has the pattern {row.pattern} here and {other.pattern} in "
                f"row {other.line}; a specimen has one pattern"
            )


def _faults_of_set(rows: Sequence[Row], has_splits: bool) -> Iterator[str]:
    """Faults of the rows together; they are looked for only where no row has a fault."""
    patterns = {row.pattern for row in rows}
    if len(patterns) == 1:
        yield f"{TABLE}: has one pattern only, {rows[0].pattern}; a network needs two or more to tell apart"
    if len(patterns) > MAX_PATTERNS:
        yield f"{TABLE}: has {len(patterns)} patterns, more than {MAX_PATTERNS}; is 'pattern' the right column?"
    specimens = {row.specimen for row in rows}
    if len(specimens) == 1 and specimens != {""} and not has_splits:
        yield f"{TABLE}: all rows are of specimen {rows[0].specimen}; testing needs a second one, or a column split"


def _notes(rows: Sequence[Row], kind: str, folder: pathlib.Path) -> Iterator[str]:
    known = [row for row in rows if row.specimen]
    if kind == CELLS and len(known) < len(rows):
        yield (
            f"{len(rows) - len(known)} of {len(rows)} cells have no specimen: no division can keep the cells of an "
            "unknown specimen together, and the report will say so"
        )
    if without := [row for row in rows if row.mask is None]:
        of_kind = "images" if kind == SPECIMENS else "cells"
        who = "only the network mil can learn from them" if kind == SPECIMENS else "readers that need masks refuse them"
        yield f"{len(without)} of {len(rows)} {of_kind} have no mask: {who}"
    splits, patterns = _values(known, "split"), _values(known, "pattern")
    if divided := [name for name, found in splits.items() if len(found) > 1]:
        yield f"in two splits, which the report will call leakage: specimen {shorten(divided, _MAX_NAMES)}"
    if mixed := [name for name, found in patterns.items() if len(found) > 1 and kind == CELLS]:
        yield (
            f"cells of several patterns: specimen {shorten(mixed, _MAX_NAMES)}; reports by specimen take the most "
            "frequent one as true"
        )
    counts = collections.Counter(pattern for found in patterns.values() for pattern in found)
    if alone := sorted(pattern for pattern, count in counts.items() if count == 1):
        yield (
            f"one specimen only: pattern {shorten(alone, _MAX_NAMES)}; nothing of it is left to train on while it is "
            "tested"
        )
    yield from _nearly_known(sorted({row.pattern for row in rows}))
    if unlisted := _unlisted(rows, folder):
        yield f"{len(unlisted)} images have no row in {TABLE}: {shorten(unlisted, _MAX_NAMES)}"


def _nearly_known(patterns: Sequence[str]) -> Iterator[str]:
    """Patterns without a consensus code that look like misspellings of one that has a code."""
    names = [name for name in icap.LABELS if not name.startswith("AC-")]
    for pattern in patterns:
        if pattern not in icap.LABELS and (near := difflib.get_close_matches(pattern, names, n=1, cutoff=0.8)):
            yield f"the pattern '{pattern}' has no consensus code; is it a misspelling of {near[0]}?"


def _values(rows: Iterable[Row], attribute: str) -> dict[str, set[str]]:
    """The different values of an attribute in the rows of each specimen."""
    values: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row.specimen, set()).add(getattr(row, attribute))
    return values


def _unlisted(rows: Sequence[Row], folder: pathlib.Path) -> list[str]:
    """Images in the folders of the listed ones that are in no row."""
    listed = {path for row in rows for path in (row.image, row.mask)}
    folders = sorted({row.image.parent for row in rows})
    found = (path for parent in folders for path in sorted(parent.iterdir()))
    return [
        path.relative_to(folder).as_posix()
        for path in found
        if path.suffix.lower() in image_files.SUFFIXES and path not in listed
    ]
