"""Tiles of key metrics, and panels with the metrics of pixels and objects, as HTML."""

from collections.abc import Iterable, Sequence
from typing import Any

from hep2jax.report.layout import KeyMetrics
from hep2jax.report.markup import Html, element, format_value, interval, is_interval, is_number, join, table
from hep2jax.report.terms import coded_label, metric_definition, metric_name, term

PIXEL_ORDER = ("Dice", "Dice_mean_per_image", "JA", "SE", "SP", "AC", "SEG", "SEG_instances")
ALIASES = ("pixel_accuracy",)
"""Keys that repeat the value of another key."""


def tiles(section: dict[str, Any], key_metrics: Sequence[KeyMetrics]) -> Html:
    """Tiles with the key metrics of a split and their intervals; missing metrics are left out."""
    label, baseline = _strongest(pixel_baselines(section))
    drawn = []
    for group in key_metrics:
        values = section if group.section is None else section.get(group.section) or {}
        group_baseline = baseline if group.section == "pixel" else {}
        drawn += [_tile(group.prefix, key, values, label, group_baseline) for key in group.names if key in values]
    return element("div", *drawn, class_="tiles")


def _tile(prefix: str, key: str, values: dict[str, Any], baseline_label: str, baseline: dict[str, Any]) -> Html:
    value, bounds = values[key], values.get(f"{key}_ci95")
    lines = [
        element("span", prefix, metric_name(key), class_="label"),
        element("strong", format_value(value)),
        _range_bar(value, bounds, baseline.get(key)),
        element("span", f"95\u202f%: {interval(bounds)}" if is_interval(bounds) else "no interval", class_="bounds"),
    ]
    if is_number(baseline.get(key)):
        lines.append(element("span", f"{baseline_label}: {format_value(baseline[key])}", class_="bounds"))
    return element("div", *lines, class_="tile", title=metric_definition(key))


def _range_bar(value: Any, bounds: Any, baseline: Any) -> Html:
    """A scale from 0 to 1 with the interval as a band, the value as a tick and the baseline as a hollow mark."""
    marks = []
    if is_interval(bounds):
        low, high = _position(bounds[0]), _position(bounds[1])
        marks.append(element("i", class_="band", style=f"left:{low:.1f}%;width:{high - low:.1f}%"))
    if is_number(baseline):
        marks.append(element("i", class_="mark", style=f"left:{_position(baseline):.1f}%"))
    if is_number(value):
        marks.append(element("i", class_="tick", style=f"left:{_position(value):.1f}%"))
    return element("span", *marks, class_="range", aria_hidden="true")


def _position(value: float) -> float:
    return 100 * min(max(value, 0.0), 1.0)


def bar(value: Any) -> Html:
    """A value in [0, 1] with a bar of this length."""
    length = _position(value) if is_number(value) else 0.0
    filled = element("i", element("i", style=f"width:{length:.1f}%"), class_="bar", aria_hidden="true")
    return element("span", format_value(value), filled, class_="barred")


def pixel_baselines(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pixel metrics of the classical baselines of a split, by displayed name; empty if no baseline was run."""
    baselines = section.get("baselines") or {}
    return {name.replace("_", " + ").capitalize(): values.get("pixel") or {} for name, values in baselines.items()}


def _strongest(baselines: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Name and metrics of the baseline with the highest Dice, the reference for a network."""
    return max(baselines.items(), key=lambda item: item[1].get("Dice") or 0.0, default=("", {}))


def pixel_panel(section: dict[str, Any]) -> Html:
    """Panel with the metrics of pixels and objects, their intervals, the baselines, and definitions."""
    pixel = _with_pattern_metrics(section.get("pixel") or {})
    keys = [key for key in PIXEL_ORDER if key in pixel] + _other_metrics(pixel)
    if not keys:
        return Html("")
    baselines = pixel_baselines(section)
    header = ["metric", "value", "95\u202f% interval", *baselines, "definition"]
    rows = [_pixel_row(key, pixel, baselines) for key in keys]
    heading = element("h3", "Pixels and objects ", element("small", "cell against background, artefacts left out"))
    method = pixel.get("ci_method")
    note = element("p", f"Intervals: {method}.", class_="muted note") if method else None
    return element("section", heading, table(header, rows, class_="figures pixels"), note, class_="panel")


def _with_pattern_metrics(pixel: dict[str, Any]) -> dict[str, Any]:
    classes = pixel.get("classes")
    return {**classes, **pixel} if isinstance(classes, dict) else pixel


def _other_metrics(pixel: dict[str, Any]) -> list[str]:
    """Metrics that are not in `PIXEL_ORDER`; they are shown last, without counts and repeated values."""
    known = (*PIXEL_ORDER, *ALIASES)
    return [key for key, value in pixel.items() if key not in known and isinstance(value, float)]


def _pixel_row(key: str, pixel: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> list[Any]:
    baseline_cells = [
        element("span", format_value(values[key]), class_="baseline", data_label=label) if key in values else ""
        for label, values in baselines.items()
    ]
    return [
        term(key),
        element("b", format_value(pixel.get(key))),
        interval(pixel.get(f"{key}_ci95")),
        *baseline_cells,
        element("span", metric_definition(key), class_="definition"),
    ]


def pattern_pixels_panel(section: dict[str, Any], classes: Sequence[str]) -> Html:
    """Panel with Dice and intersection over union of each pattern; empty if there are no such metrics."""
    pixel = section.get("pixel") or {}
    dice = pixel.get("Dice_per_pattern") or {}
    iou = (pixel.get("classes") or {}).get("iou") or {}
    if not (dice or iou):
        return Html("")
    names = _in_class_order({**dice, **iou}, classes)
    rows = [[coded_label(i, name), bar(dice.get(name)), bar(iou.get(name))] for i, name in names]
    header = [
        "pattern",
        element("abbr", "Dice", title="Cell against background on the images of this pattern"),
        element(
            "abbr", "IoU", title="Pixels predicted as this pattern against pixels of this pattern, over all images"
        ),
    ]
    return element(
        "section", element("h3", "Pixels by pattern"), table(header, rows, class_="figures barred-rows"), class_="panel"
    )


def _in_class_order(names: Iterable[str], classes: Sequence[str]) -> list[tuple[int, str]]:
    present = set(names)
    extra = sorted(present - set(classes))
    return [(i, name) for i, name in enumerate([*classes, *extra]) if name in present]


def side_by_side(*panels: Html, class_: str = "") -> Html:
    """The panels that are not empty, in columns if the page is wide enough."""
    shown = [panel for panel in panels if panel]
    return element("div", *shown, class_=f"panels-of-split {class_}".strip()) if shown else join([])
