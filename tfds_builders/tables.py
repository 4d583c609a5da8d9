"""Tables of the owners: reading rows, and unifying how labels, cells and specimens are written."""

import csv
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence

INTENSITIES = ("positive", "intermediate", "unknown")
UNKNOWN = INTENSITIES[-1]

_CELL_ID = re.compile(r"(\d+)(\.png)?", re.IGNORECASE)

Rows = list[tuple[int, list[str]]]
"""Line number and stripped entries of each row that is not blank."""


def read_rows(path: pathlib.Path) -> Rows:
    """Rows of a table with any line ending.

    Raises:
        ValueError: the file is not a text table, or its rows differ in length; the message names the file and the line.
    """
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


def read_header(path: pathlib.Path) -> dict[str, int]:
    """The `header` of any file, empty if it is not text; used to find the right one among several tables."""
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            return header([(1, [entry.strip() for entry in line]) for line in itertools.islice(csv.reader(file), 1)])
    except (UnicodeDecodeError, csv.Error):
        return {}


def header(rows: Rows) -> dict[str, int]:
    """Columns of a table by the names in its first row, in lower case and with blanks for underscores."""
    return {name.lower().replace("_", " "): column for column, name in enumerate(rows[0][1])} if rows else {}


def spellings_of(patterns: Sequence[str], variants: Mapping[str, str]) -> dict[str, str]:
    """The pattern of each spelling, as a table for `known`."""
    return {plain(name): name for name in patterns} | {plain(name): pattern for name, pattern in variants.items()}


def known(value: str, spellings: Mapping[str, str], what: str, where: str) -> str:
    """The unified name of a label, ignoring case, blanks, hyphens and underscores; ValueError for an unknown one."""
    if plain(value) not in spellings:
        names = ", ".join(dict.fromkeys(spellings.values()))
        raise ValueError(f"{where}: unknown {what} '{value}'; expected one of {names}")
    return spellings[plain(value)]


def intensity(value: str, where: str) -> str:
    """One of `INTENSITIES`; an empty entry means unknown."""
    return known(value or UNKNOWN, spellings_of(INTENSITIES, {}), "intensity", where)


def cell_number(entry: str, where: str) -> int:
    """Number of a cell from `7`, `00007`, `00007.png` or a path that ends with one of these."""
    match = cell_id(entry)
    if match is None:
        raise ValueError(f"{where}: '{entry}' is not the id of a cell, such as 00007 or 00007.png")
    return int(match[1])


def cell_id(entry: str) -> re.Match[str] | None:
    """Match of a cell id in an entry, with the number as first group; None if there is none."""
    return _CELL_ID.fullmatch(entry.replace("\\", "/").rsplit("/", 1)[-1])


def specimen_name(entry: str) -> str:
    """Name of a specimen: s007 for a number, any other text unchanged; empty if it is not known."""
    return f"s{int(entry):03d}" if entry.isdecimal() else entry


def plain(value: str) -> str:
    """The form in which spellings are compared: lower case, without blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", value.lower())
