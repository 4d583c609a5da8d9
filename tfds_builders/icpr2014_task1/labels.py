"""The tables of I3A Task 1: labels of its cells, and the specimens and locations from which the cells come.

`gt_training.csv` has two forms. In public copies it has a header, `Image ID,Image class`. We have not seen the file of
the contest; according to programs that read it, it has no header, and its columns are image file, mask file, class, and
others. The meaning of the others is our interpretation, from their values (`_other_columns`).
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from tfds_builders import tables
from tfds_builders.cells import NO_LOCATION

_ID_COLUMNS = ("image id", "image", "image file", "id")
_CLASS_COLUMNS = ("image class", "class", "pattern", "label")
_MASK_COLUMNS = ("mask", "mask file")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """The entry of a cell in `gt_training.csv`."""

    line: int
    pattern: str
    intensity: str = tables.UNKNOWN
    specimen_id: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The entry of a cell in `specimens.csv`."""

    specimen_id: str
    location: int
    intensity: str


def read_labels(path: pathlib.Path, spellings: Mapping[str, str]) -> tuple[dict[int, Label], list[str]]:
    """Labels of `gt_training.csv` in either form, by cell number, and remarks on how its other columns were read."""
    rows = tables.read_rows(path)
    cell_column, class_column, others, rows = _label_columns(path, rows)
    patterns = [tables.known(row[class_column], spellings, "pattern", f"{path}, line {line}") for line, row in rows]
    meaning, remarks = _other_columns({k: [row[k] for _, row in rows] for k in others}, patterns)
    labels: dict[int, Label] = {}
    for (line, row), pattern in zip(rows, patterns, strict=True):
        where = f"{path}, line {line}"
        intensity = row[meaning["intensity"]].lower() if "intensity" in meaning else tables.UNKNOWN
        specimen_id = tables.specimen_name(row[meaning["specimen"]]) if "specimen" in meaning else ""
        label = Label(line=line, pattern=pattern, intensity=intensity, specimen_id=specimen_id)
        _enter(labels, tables.cell_number(row[cell_column], where), label, where)
    return labels, [f"{path.name}: {remark}" for remark in remarks]


def read_places(path: pathlib.Path) -> tuple[dict[int, Place], bool]:
    """Entries of `specimens.csv` by cell number, and whether their intensity is inferred."""
    rows = tables.read_rows(path)
    columns = tables.header(rows)
    for name in ("image id", "specimen"):
        if name not in columns:
            raise ValueError(f"{path} has no column '{name}': expected Image ID,specimen,location,intensity")
    inferred = "intensity" not in columns and "intensity inferred" in columns
    intensity_column = columns.get("intensity inferred" if inferred else "intensity")
    places: dict[int, Place] = {}
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        place = Place(
            specimen_id=tables.specimen_name(row[columns["specimen"]]),
            location=_location(row[columns["location"]], where) if "location" in columns else NO_LOCATION,
            intensity=tables.intensity(row[intensity_column], where)
            if intensity_column is not None
            else tables.UNKNOWN,
        )
        _enter(places, tables.cell_number(row[columns["image id"]], where), place, where)
    return places, inferred


def _location(entry: str, where: str) -> int:
    if entry and not entry.isdecimal():
        raise ValueError(f"{where}: location '{entry}' is not a number")
    return int(entry) if entry else NO_LOCATION


def _enter(table: dict[int, Label] | dict[int, Place], number: int, entry: Label | Place, where: str) -> None:
    if number in table:
        raise ValueError(f"{where}: cell {number:05d} is listed twice; restore the file from the owner's archive")
    table[number] = entry  # pyright: ignore[reportArgumentType]


def _label_columns(path: pathlib.Path, rows: tables.Rows) -> tuple[int, int, list[int], tables.Rows]:
    """The columns of the cell and of its class, the other columns, and the rows without a header."""
    if rows and tables.cell_id(rows[0][1][0]):
        width = len(rows[0][1])
        if width > 1:
            return (0, 1, [], rows) if width == 2 else (0, 2, list(range(3, width)), rows)
    columns = tables.header(rows)
    cell = next((columns[name] for name in _ID_COLUMNS if name in columns), None)
    label = next((columns[name] for name in _CLASS_COLUMNS if name in columns), None)
    if cell is None or label is None:
        raise ValueError(
            f"{path} has no column '{'Image ID' if cell is None else 'Image class'}': expected the header "
            "'Image ID,Image class', or lines without header 'NNNNN.png,NNNNN_Mask.png,class,...'"
        )
    masks = [columns[name] for name in _MASK_COLUMNS if name in columns]
    return cell, label, [k for k in columns.values() if k not in (cell, label, *masks)], rows[1:]


def _other_columns(columns: dict[int, list[str]], patterns: list[str]) -> tuple[dict[str, int], list[str]]:
    """Which column holds the intensity and which the specimen, and a remark on each column.

    This is our interpretation, because we have not seen the file. The intensity is in the only column in which all
    entries are positive or intermediate. Specimens are in the only column in which every value occurs with a single
    class; there must be more values than classes (otherwise it may name the class) and, on average, at least two cells
    for each value (otherwise it may name the cell).
    """
    intensities = [k for k, values in columns.items() if {v.lower() for v in values} <= set(tables.INTENSITIES[:2])]
    others = [k for k in columns if k not in intensities]
    specimens = [k for k in others if _may_be_specimens(columns[k], patterns)]
    candidates = {"intensity": intensities, "specimen": specimens}
    meaning = {name: columns_of[0] for name, columns_of in candidates.items() if len(columns_of) == 1}
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
