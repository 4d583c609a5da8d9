"""Classification of specimens, images or cells: the confusion matrix and the metrics of each pattern."""

from collections.abc import Callable, Sequence
from typing import Any

from hep2jax.report.markup import Html, count, element, format_value, interval, percent, table
from hep2jax.report.panels import bar
from hep2jax.report.terms import coded_label, consensus, metric_name, pattern_name

_Label = Callable[[int, str], Html]
_RATES = (
    (
        "average_precision",
        "AP",
        "Average precision: mean precision over the thresholds at which an example of the pattern is found",
    ),
    ("f1", "F1", "Harmonic mean of recall and precision"),
    ("recall", "recall", "The share of the examples of this pattern that was read as it"),
    ("precision", "precision", "The share of the examples read as this pattern that has it"),
)
"""Rates of a pattern: key, name and definition. The first two are for tasks with several patterns per example."""


def classification(
    title: str,
    unit: str,
    metrics: dict[str, Any],
    classes: Sequence[str],
    label: _Label = coded_label,
) -> Html:
    """Panel with the confusion matrix and a table of the patterns; empty if there are no such metrics.

    Args:
        title: heading.
        unit: what is counted: `specimen`, `image` or `cell`.
        metrics: `confusion`, `per_class`, `aca`, `mca`, and their intervals and notes; any may be absent.
        classes: pattern names in class order, used if `metrics` has no `classes`.
        label: makes the label of a row from the index and the name of its class.
    """
    confusion, per_class = metrics.get("confusion") or [], metrics.get("per_class") or {}
    classes = _complete_names(metrics.get("classes") or classes, len(confusion))
    parts = []
    if confusion:
        parts.append(_matrix(confusion, classes, unit, label))
    if per_class:
        parts.append(_per_class_table(per_class, classes, unit, label))
    summary = " · ".join(_summarise(metrics, key) for key in _headline(metrics))
    if not (parts or summary):
        return Html("")
    heading = element("h3", title, " ", element("small", summary))
    return element("section", heading, *parts, _notes(metrics, unit), class_="panel")


def _complete_names(classes: Sequence[str], number: int) -> list[str]:
    """A name for every row of the matrix, with substitutes for missing names."""
    return [*classes, *(f"class {index}" for index in range(len(classes), number))]


def _headline(metrics: dict[str, Any]) -> list[str]:
    """The metrics of the heading: the usual ones, then any other with an interval, unless examples have several labels.

    Of several labels the key metrics of the split already show the others.
    """
    usual = [key for key in ("mca", "aca", "mAP") if key in metrics]
    further = [key for key in metrics if f"{key}_ci95" in metrics and key not in usual]
    return usual if "mAP" in metrics else usual + further


def _summarise(metrics: dict[str, Any], key: str) -> str:
    bounds = interval(metrics.get(f"{key}_ci95"))
    return f"{metric_name(key)} {format_value(metrics[key])}" + (f" ({bounds})" if bounds else "")


def _notes(metrics: dict[str, Any], unit: str) -> Html | None:
    undecided, method, threshold = (metrics.get(key) for key in ("num_undecided", "ci_method", "threshold"))
    notes = [f"Intervals: {method}."] if method else []
    if threshold:
        notes.append(
            f"F1, recall and precision: an image counts as having the patterns with probability ≥ {threshold:g}."
        )
    if undecided:
        notes.append(f"{count(undecided, unit)} without a decision: counted as wrong, and not in the matrix.")
    return element("p", " ".join(notes), class_="muted note") if notes else None


def _matrix(confusion: Sequence[Sequence[float]], classes: Sequence[str], unit: str, label: _Label) -> Html:
    """The confusion matrix: rows are the truth; the shade of a cell is its share of the row, its hue marks errors."""
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


def _per_class_cells(metrics: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    return [*(bar(metrics.get(key)) for key in keys), format_value(metrics.get("support"))]
