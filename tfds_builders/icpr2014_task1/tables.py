"""Comma-separated tables of single cells: reading rows, unifying how labels, cells and specimens are written.

`gt_training.csv` has two shapes. Public copies have a header, `Image ID,Image class`. The contest's own file has not
been seen: by programs that read it, it has no header, and its columns are image file, mask file, class, and further
ones. What the further ones are is our reading, made from their values (`_further_columns`).
"""

import csv
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence

INTENSITIES = ("positive", "intermediate", "unknown")
UNKNOWN = INTENSITIES[-1]
NO_LOCATION = -1

_CELL_ID = re.compile(r"(\d+)(\.png)?", re.IGNORECASE)
_ID_COLUMNS = ("image id", "image", "image file", "id")
_CLASS_COLUMNS = ("image class", "class", "pattern", "label")
_MASK_COLUMNS = ("mask", "mask file")

Rows = list[tuple[int, list[str]]]
"""Line number and stripped entries of each row that is not blank."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """What `gt_training.csv` says of a cell."""

    line: int
    pattern: str
    intensity: str = UNKNOWN
    specimen_id: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What `specimens.csv` says of a cell."""

    specimen_id: str
    location: int
    intensity: str


def read_rows(path: pathlib.Path) -> Rows:
    """Rows of a table with any line end, all of one length; ValueError names the file and the line."""
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [entry.strip() for entry in line]) for line in reader if "".join(line).strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text table ({error}); restore it from the owner's archive") from error
    for line, entries in rows:
        if len(entries) != len(rows[0][1]):
            raise ValueError(f"{path}, line {line}: {len(entries)} entries instead of {len(rows[0][1])}")
    return rows


def read_labels(path: pathlib.Path, spellings: Mapping[str, str]) -> tuple[dict[int, Label], list[str]]:
    """Labels of `gt_training.csv` in either shape, by cell, and remarks on what was read from further columns."""
    rows = read_rows(path)
    cell_column, class_column, others, rows = _label_columns(path, rows)
    patterns = [known(row[class_column], spellings, "pattern", f"{path}, line {line}") for line, row in rows]
    meaning, remarks = _further_columns({k: [row[k] for _, row in rows] for k in others}, patterns)
    labels: dict[int, Label] = {}
    for (line, row), pattern in zip(rows, patterns, strict=True):
        where = f"{path}, line {line}"
        intensity = row[meaning["intensity"]].lower() if "intensity" in meaning else UNKNOWN
        specimen_id = specimen_name(row[meaning["specimen"]]) if "specimen" in meaning else ""
        label = Label(line=line, pattern=pattern, intensity=intensity, specimen_id=specimen_id)
        _enter(labels, cell_number(row[cell_column], where), label, where)
    return labels, [f"{path.name}: {remark}" for remark in remarks]


def read_places(path: pathlib.Path) -> tuple[dict[int, Place], bool]:
    """Specimen, location and intensity of `specimens.csv`, by cell, and whether the intensity is an inferred one."""
    rows = read_rows(path)
    columns = header(rows)
    for name in ("image id", "specimen"):
        if name not in columns:
            raise ValueError(f"{path} has no column '{name}': expected Image ID,specimen,location,intensity")
    inferred = "intensity" not in columns and "intensity inferred" in columns
    intensity_column = columns.get("intensity inferred" if inferred else "intensity")
    places: dict[int, Place] = {}
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        place = Place(
            specimen_id=specimen_name(row[columns["specimen"]]),
            location=_location(row[columns["location"]], where) if "location" in columns else NO_LOCATION,
            intensity=intensity(row[intensity_column], where) if intensity_column is not None else UNKNOWN,
        )
        _enter(places, cell_number(row[columns["image id"]], where), place, where)
    return places, inferred


def read_header(path: pathlib.Path) -> dict[str, int]:
    """The `header` of any file, empty if it is no text: to find out which of several tables is the one sought."""
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            return header([(1, [entry.strip() for entry in line]) for line in itertools.islice(csv.reader(file), 1)])
    except (UnicodeDecodeError, csv.Error):
        return {}


def header(rows: Rows) -> dict[str, int]:
    """Columns of a table by the lower-case names in its first row, with a blank for an underscore."""
    return {name.lower().replace("_", " "): column for column, name in enumerate(rows[0][1])} if rows else {}


def spellings_of(patterns: Sequence[str], variants: Mapping[str, str]) -> dict[str, str]:
    """Pattern by each of its spellings, in the form that `known` looks up."""
    return {plain(name): name for name in patterns} | {plain(name): pattern for name, pattern in variants.items()}


def known(value: str, spellings: Mapping[str, str], what: str, where: str) -> str:
    """The unified name of a label; case, blanks, hyphens and underscores do not count."""
    if plain(value) not in spellings:
        names = ", ".join(dict.fromkeys(spellings.values()))
        raise ValueError(f"{where}: unknown {what} '{value}'; expected one of {names}")
    return spellings[plain(value)]


def intensity(value: str, where: str) -> str:
    """One of `INTENSITIES`; an empty entry is unknown."""
    return known(value or UNKNOWN, spellings_of(INTENSITIES, {}), "intensity", where)


def cell_number(entry: str, where: str) -> int:
    """Number of a cell from `7`, `00007`, `00007.png` or a path that ends so."""
    match = _cell_id(entry)
    if match is None:
        raise ValueError(f"{where}: '{entry}' is not the id of a cell, such as 00007 or 00007.png")
    return int(match[1])


def specimen_name(entry: str) -> str:
    """Name of a specimen: a number as s007, any other text as it is, empty where unknown."""
    return f"s{int(entry):03d}" if entry.isdecimal() else entry


def plain(value: str) -> str:
    """The form in which spellings are compared: lower case, without blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", value.lower())


def _cell_id(entry: str) -> re.Match[str] | None:
    return _CELL_ID.fullmatch(entry.replace("\\", "/").rsplit("/", 1)[-1])


def _location(entry: str, where: str) -> int:
    if entry and not entry.isdecimal():
        raise ValueError(f"{where}: location '{entry}' is not a number")
    return int(entry) if entry else NO_LOCATION


def _enter(table: dict[int, Label] | dict[int, Place], number: int, entry: Label | Place, where: str) -> None:
    if number in table:
        raise ValueError(f"{where}: cell {number:05d} stands there twice; restore the file from the owner's archive")
    table[number] = entry  # pyright: ignore[reportArgumentType]


def _label_columns(path: pathlib.Path, rows: Rows) -> tuple[int, int, list[int], Rows]:
    """Columns of the cell and of its class, those left over, and the rows without a header."""
    if rows and _cell_id(rows[0][1][0]):
        width = len(rows[0][1])
        if width > 1:
            return (0, 1, [], rows) if width == 2 else (0, 2, list(range(3, width)), rows)
    columns = header(rows)
    cell = next((columns[name] for name in _ID_COLUMNS if name in columns), None)
    label = next((columns[name] for name in _CLASS_COLUMNS if name in columns), None)
    if cell is None or label is None:
        raise ValueError(
            f"{path} has no column '{'Image ID' if cell is None else 'Image class'}': expected the header "
            "'Image ID,Image class', or lines without header 'NNNNN.png,NNNNN_Mask.png,class,...'"
        )
    masks = [columns[name] for name in _MASK_COLUMNS if name in columns]
    return cell, label, [k for k in columns.values() if k not in (cell, label, *masks)], rows[1:]


def _further_columns(columns: dict[int, list[str]], patterns: list[str]) -> tuple[dict[str, int], list[str]]:
    """Which column is the intensity and which the specimen, and a remark on each column.

    Our reading, for nobody here has seen the file: the intensity is the one column whose entries are all positive or
    intermediate. Specimens are the one column whose every value goes with a single class, where there are more
    values than classes (else it may name the class) and at least two cells a value on average (else it may name the
    cell).
    """
    intensities = [k for k, values in columns.items() if {v.lower() for v in values} <= set(INTENSITIES[:2])]
    others = [k for k in columns if k not in intensities]
    specimens = [k for k in others if _may_be_specimens(columns[k], patterns)]
    may_be = {"intensity": intensities, "specimen": specimens}
    meaning = {name: found[0] for name, found in may_be.items() if len(found) == 1}
    names = {column: name for name, column in meaning.items()}
    return meaning, [
        f"column {k + 1} is read as the {names[k]}, by its values" if k in names else f"column {k + 1} is not read"
        for k in columns
    ]


def _may_be_specimens(values: list[str], patterns: list[str]) -> bool:
    pairs, distinct = set(zip(values, patterns, strict=True)), set(values)
    if not all(values) or len(pairs) != len(distinct):
        return False
    return len(set(patterns)) < len(distinct) <= len(values) / 2
