"""Table of the specimens with the predictions of their cells, worst first."""

from collections.abc import Sequence
from typing import Any

from hep2jax.report.markup import Html, count, element, format_value, is_number, table
from hep2jax.report.panels import bar
from hep2jax.report.terms import pattern_label, pattern_name


def specimen_table(specimens: Sequence[dict[str, Any]], classes: Sequence[str]) -> Html:
    """Panel with a row for each specimen, ordered by the share of correct cells; empty without specimens.

    Args:
        specimens: dictionaries with `specimen`, `pattern`, `prediction`, `num_cells`, `right`; any may be absent.
        classes: pattern names in class order.
    """
    if not specimens:
        return Html("")
    ordered = sorted(specimens, key=_worst_first)
    header = [
        "specimen",
        "pattern",
        element("abbr", "read as", title="The pattern that most of the specimen's cells were read as"),
        element("abbr", "cells read correctly", title="Share of the specimen's cells that were read as its pattern"),
        "cells",
    ]
    rows = table(header, [_row(row, classes) for row in ordered], class_="figures barred-rows specimens")
    heading = element("h3", "Specimens ", element("small", _summary(specimens)))
    box = element("div", rows, class_="tall", tabindex=0, role="region", aria_label="Specimens")
    return element("section", heading, box, class_="panel")


def _summary(specimens: Sequence[dict[str, Any]]) -> str:
    num_wrong = sum(_wrong(row) for row in specimens)
    right = f"{format_value(len(specimens) - num_wrong)} of {count(len(specimens), 'specimen')} read correctly"
    return f"{right}, each as most of its cells; lowest share of correct cells first"


def _row(row: dict[str, Any], classes: Sequence[str]) -> list[Any]:
    read = _pattern(row.get("prediction"), classes)
    number = f"{format_value(row.get('right'))} of {format_value(row.get('num_cells'))}"
    mark = element("b", "✕ ", read, class_="wrong") if _wrong(row) else read
    return [row.get("specimen"), _pattern(row.get("pattern"), classes), mark, bar(_share(row)), number]


def _pattern(name: Any, classes: Sequence[str]) -> Html:
    if name in classes:
        return pattern_label(list(classes).index(name), name)
    return element("span", pattern_name(name))


def _wrong(row: dict[str, Any]) -> bool:
    return row.get("pattern") != row.get("prediction")


def _share(row: dict[str, Any]) -> float | None:
    right, number = row.get("right"), row.get("num_cells")
    return right / number if is_number(right) and is_number(number) and number else None


def _worst_first(row: dict[str, Any]) -> tuple[float, str]:
    """Sort key; specimens without a share come last."""
    share = _share(row)
    return (2.0 if share is None else share), str(row.get("specimen"))
