"""Reads the rows of a spreadsheet, or of a text table with commas or semicolons, as text."""

import csv
import io
import pathlib
from typing import Any

from tfds_builders.tables import Rows

SUFFIXES = (".csv", ".xlsx", ".xls")


def read_sheet(path: pathlib.Path) -> Rows:
    """Line number and stripped entries of each row of the first sheet, without blank rows.

    Excel files are read by python-calamine, the only maintained reader of both formats (xlrd reads .xls only).

    Raises:
        ValueError: the file is damaged, or the reader is not installed.
    """
    lines = _read_text(path) if path.suffix.lower() == ".csv" else _read_excel(path)
    rows = [(number, [_text(entry) for entry in line]) for number, line in enumerate(lines, start=1)]
    return [(number, entries) for number, entries in rows if any(entries)]


def _read_text(path: pathlib.Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = ";" if text.count(";") > text.count(",") else ","  # Excel writes ; if the decimal sign is a comma
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text table ({error}); restore it from the owner's archive") from error


def _read_excel(path: pathlib.Path) -> list[list[Any]]:
    try:
        import python_calamine
    except ImportError as error:
        raise ValueError(
            f"{path}: reading it needs python-calamine; run pip install 'hep2jax[aida]', or save it beside as .csv"
        ) from error
    try:
        return python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, IndexError) as error:
        raise ValueError(f"{path} is not an Excel table ({error}); restore it from the owner's archive") from error


def _text(entry: Any) -> str:
    """An entry as text; Excel stores integers as floats, so 12.0 becomes 12."""
    return str(int(entry)) if isinstance(entry, float) and entry.is_integer() else str(entry).strip()
