"""Reads what a prediction wrote."""

import csv
import json
import pathlib
from typing import Any


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a table; values that are numbers become numbers."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def records(output: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `predictions.jsonl`."""
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text(encoding="ascii").splitlines()]
