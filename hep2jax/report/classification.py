"""How patterns were read, of specimens, images or cells: confusion matrix and figures of each pattern."""

from collections.abc import Callable, Sequence
from typing import Any

from hep2jax.report.markup import Html, count, element, format_value, interval, percent, table
from hep2jax.report.panels import bar
from hep2jax.report.terms import coded_label, consensus, name_of, pattern_name

_Label = Callable[[int, str], Html]
_RATES = (
    (
        "average_precision",
        "AP",
        "Average precision: precision over the thresholds at which one of the pattern is found",
    ),
    ("f1", "F1", "Harmonic mean of recall and precision"),
    ("recall", "recall", "Of those of the pattern, the share that was read as it"),
    ("precision", "precision", "Of those read as the pattern, the share that is of it"),
)
"""Rates of a pattern: key, word and what it says; the first two where an example may have several patterns."""


def classification(
    title: str,
    unit: str,
    figures: dict[str, Any],
    classes: Sequence[str],
    label: _Label = coded_label,
) -> Html:
    """Panel with confusion matrix and table for each pattern; empty where neither was measured.

    Args:
        title: heading.
        unit: what is counted, `specimen`, `image` or `cell`.
        figures: `confusion`, `per_class`, `aca`, `mca` and what goes with them; any may be absent.
        classes: pattern names in class order, where `figures` does not name its own.
        label: what a row is called, of index and name of its class.
    """
    confusion, per_class = figures.get("confusion") or [], figures.get("per_class") or {}
    classes = _named(figures.get("classes") or classes, len(confusion))
    parts = []
    if confusion:
        parts.append(_matrix(confusion, classes, unit, label))
    if per_class:
        parts.append(_per_class_table(per_class, classes, unit, label))
    summary = " · ".join(_summarised(figures, key) for key in ("mca", "aca", "mAP") if key in figures)
    if not (parts or summary):
        return Html("")
    heading = element("h3", title, " ", element("small", summary))
    return element("section", heading, *parts, _notes(figures, unit), class_="panel")


def _named(classes: Sequence[str], number: int) -> list[str]:
    """A name for every row of the matrix, even where the names are missing."""
    return [*classes, *(f"class {index}" for index in range(len(classes), number))]


def _summarised(figures: dict[str, Any], key: str) -> str:
    bounds = interval(figures.get(f"{key}_ci95"))
    return f"{name_of(key)} {format_value(figures[key])}" + (f" ({bounds})" if bounds else "")


def _notes(figures: dict[str, Any], unit: str) -> Html | None:
    undecided, method, threshold = (figures.get(key) for key in ("num_undecided", "ci_method", "threshold"))
    notes = [f"Intervals: {method}."] if method else []
    if threshold:
        notes.append(f"F1, recall and precision: an image is said to have the patterns of probability ≥ {threshold:g}.")
    if undecided:
        notes.append(f"{count(undecided, unit)} without a decision: wrong, and in no column of the matrix.")
    return element("p", " ".join(notes), class_="muted note") if notes else None


def _matrix(confusion: Sequence[Sequence[float]], classes: Sequence[str], unit: str, label: _Label) -> Html:
    """Rows are the truth; a cell is shaded by its share of its row, errors in another hue than hits."""
    header = [
        element("span", "truth ↓\u2002read as →", class_="corner"),
        *(element("span", pattern_name(name), class_="upright", title=consensus(name)) for name in [*classes, "all"]),
    ]
    rows = [[label(i, classes[i]), *_matrix_cells(i, row, classes, unit)] for i, row in enumerate(confusion)]
    return table(header, rows, class_="confusion")


def _matrix_cells(truth: int, row: Sequence[float], classes: Sequence[str], unit: str) -> list[Html]:
    total = element("span", format_value(sum(row)), class_="sum")
    return [*(_matrix_cell(truth, read, row, classes, unit) for read in range(len(row))), total]


def _matrix_cell(truth: int, read: int, row: Sequence[float], classes: Sequence[str], unit: str) -> Html:
    number, total = row[read], sum(row)
    share = number / total if total else 0.0
    kinds = ["cell", "hit" if truth == read else "miss"]
    kinds += ["strong"] if share > 0.5 else []
    kinds += ["empty"] if not number else []
    title = (
        f"{format_value(number)} of {format_value(total)} {unit}s of {pattern_name(classes[truth])} "
        f"read as {pattern_name(classes[read])} ({percent(share)})"
    )
    style = f"--share:{100 * share:.0f}%"
    return element("span", format_value(number), class_=" ".join(kinds), style=style, title=title)


def _per_class_table(per_class: dict[str, dict[str, Any]], classes: Sequence[str], unit: str, label: _Label) -> Html:
    names = [*classes, *(name for name in per_class if name not in classes)]
    ranked = any("average_precision" in row for row in per_class.values())
    rates = _RATES if ranked else [rate for rate in _RATES if rate[0] in ("recall", "precision")]
    rows = [
        [label(i, name), *_per_class_cells(per_class[name], [key for key, _, _ in rates])]
        for i, name in enumerate(names)
        if name in per_class
    ]
    header = ["pattern", *(element("abbr", word, title=title) for _, word, title in rates), f"{unit}s"]
    return table(header, rows, class_="figures")


def _per_class_cells(figures: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    return [*(bar(figures.get(key)) for key in keys), format_value(figures.get("support"))]
