"""Rows of a spreadsheet or of a text table with comma or semicolon, as text."""

import csv
import io
import pathlib
from typing import Any

from tfds_builders.tables import Rows

SUFFIXES = (".csv", ".xlsx", ".xls")


def read_sheet(path: pathlib.Path) -> Rows:
    """Line number and stripped entries of each row of the first sheet that is not blank.

    Excel's files are read by python-calamine, the one well-kept reader of both its formats (xlrd reads .xls only).

    Raises:
        ValueError: The file is damaged, or its reader is not installed.
    """
    lines = _read_text(path) if path.suffix.lower() == ".csv" else _read_excel(path)
    rows = [(number, [_text(entry) for entry in line]) for number, line in enumerate(lines, start=1)]
    return [(number, entries) for number, entries in rows if any(entries)]


def _read_text(path: pathlib.Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = ";" if text.count(";") > text.count(",") else ","  # Excel writes ; where the comma is decimal
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text table ({error}); restore it from the owner's archive") from error


def _read_excel(path: pathlib.Path) -> list[list[Any]]:
    try:
        import python_calamine
    except ImportError as error:
        raise ValueError(
            f"{path}: reading it needs python-calamine: pip install 'hep2jax[aida]', or save it beside as .csv"
        ) from error
    try:
        return python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, IndexError) as error:
        raise ValueError(f"{path} is not an Excel table ({error}); restore it from the owner's archive") from error


def _text(entry: Any) -> str:
    """Numbers are floats in Excel: 12.0 is 12."""
    return str(int(entry)) if isinstance(entry, float) and entry.is_integer() else str(entry).strip()
