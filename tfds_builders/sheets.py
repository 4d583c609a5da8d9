"""Reads the rows of a spreadsheet, or of a text table with commas or semicolons, as text."""

import csv
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys

from tfds_builders.tables import Rows

SUFFIXES = (".csv", ".xlsx", ".xls")

_SECONDS = 60
_READ_EXCEL = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
import python_calamine
try:
    sheet = python_calamine.CalamineWorkbook.from_path(sys.argv[1]).get_sheet_by_index(0)
    lines = sheet.to_python(skip_empty_area=False)
except BaseException as error:  # panics of the Rust library are no Exception
    sys.exit(f"{type(error).__name__}: {error}")
print(json.dumps(lines, default=str))
"""
"""A program of its own: the reader takes memory for the whole rectangle that a file names, and aborts where there is
none, which cannot be caught."""


def read_sheet(path: pathlib.Path) -> Rows:
    """Line number and stripped entries of each row of the first sheet, without blank rows.

    Excel files are read by python-calamine, the only maintained reader of both formats (xlrd reads .xls only).

    Raises:
        ValueError: the file is damaged, takes more than 1 GiB or a minute to read, or the reader is not installed.
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


def _read_excel(path: pathlib.Path) -> list[list[str | float]]:
    if importlib.util.find_spec("python_calamine") is None:
        raise ValueError(
            f"{path}: reading it needs python-calamine; run pip install 'hep2jax[aida]', or save it beside as .csv"
        )
    command = [sys.executable, "-c", _READ_EXCEL, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS)
        done.check_returncode()
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        reason = f"takes longer than {_SECONDS} s"
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())[:200]
    raise ValueError(f"{path} is not an Excel table ({reason}); restore it from the owner's archive")


def _text(entry: str | float) -> str:
    """An entry as text; Excel stores integers as floats, so 12.0 becomes 12."""
    return str(int(entry)) if isinstance(entry, float) and entry.is_integer() else str(entry).strip()
