"""Panel of the calibration: a reliability diagram, the curve of coverage against accuracy, and what follows from it."""

from collections.abc import Sequence
from typing import Any

from hep2jax.report import charts
from hep2jax.report.charts import Axis
from hep2jax.report.markup import Html, count, element, format_value, is_number, percent

_UNIT_TICKS = [0.0, 0.25, 0.5, 0.75, 1.0]


def calibration_panel(found: dict[str, Any] | None) -> Html:
    """The panel for the section `calibration` of a split's metrics; empty without one."""
    if not found:
        return Html("")
    numbers = [count(found["num_examples"], found["unit"])]
    numbers += [count(found["num_specimens"], "specimen")] if found.get("num_specimens") else []
    heading = element("h3", "Confidence ", element("small", " of ".join(numbers)))
    drawn = element("div", _reliability(found), _coverage(found), class_="charts")
    lines = (element("p", line, class_="muted note") for line in _notes(found))
    return element("section", heading, drawn, *lines, class_="panel")


def _reliability(found: dict[str, Any]) -> Html:
    """The share that is right against the confidence, before and after scaling; a dot's area is its bin's share."""
    x, y = _axis(charts.LEFT, charts.WIDTH - charts.RIGHT), _axis(charts.HEIGHT - charts.BOTTOM, charts.TOP)
    ideal = element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="ideal")
    shown = [(1, "uncalibrated", found["before"]), (0, "calibrated", found["after"])]
    series = [_bins(number, values["bins"], found["num_examples"], x, y) for number, _, values in shown]
    legend = [_entry(number, f"{name}, ECE {format_value(values['ece'])}") for number, name, values in shown]
    title = "Reliability: right against confidence"
    return charts.plane(title, [ideal, *series], x, y, unit="confidence", legend=legend)


def _bins(number: int, bins: Sequence[dict[str, Any]], total: int, x: Axis, y: Axis) -> Html:
    points = [(f"{x(b['confidence']):.1f}", f"{y(b['accuracy']):.1f}", b["count"] / max(total, 1)) for b in bins]
    line = element("polyline", points=" ".join(f"{px},{py}" for px, py, _ in points), class_=f"line-{number}")
    dots = [
        element("circle", cx=px, cy=py, r=f"{1.5 + 6 * share**0.5:.1f}", class_=f"share line-{number}")
        for px, py, share in points
    ]
    return element("g", line, *dots)


def _coverage(found: dict[str, Any]) -> Html:
    """The share of the kept examples that is right, against the share that is kept."""
    curve = found["curve"]
    lowest = min((point["accuracy"] for point in curve), default=0.0)
    ticks = charts.nice_ticks(min(lowest, 0.9), 1.0)
    x = _axis(charts.LEFT, charts.WIDTH - charts.RIGHT)
    y = Axis(low=ticks[0], high=1.0, start=charts.HEIGHT - charts.BOTTOM, end=charts.TOP, ticks=ticks)
    points = " ".join(f"{x(p['coverage']):.1f},{y(p['accuracy']):.1f}" for p in curve)
    drawn = [element("polyline", points=points, class_="line-0")]
    kept = found.get("kept")
    if kept:
        place = {"cx": f"{x(kept['coverage']):.1f}", "cy": f"{y(kept['accuracy']):.1f}"}
        drawn.append(element("circle", **place, r=4, class_="dot line-1"))
    legend = [_entry(0, "right of those kept"), _entry(1, f"confidence ≥ {format_value(found['refer_below'], 2)}")]
    title = "Coverage: right of those kept against the share kept"
    return charts.plane(title, drawn, x, y, unit="share kept", legend=legend)


def _axis(start: float, end: float) -> Axis:
    return Axis(low=0.0, high=1.0, start=start, end=end, ticks=_UNIT_TICKS)


def _entry(number: int, text: str) -> Html:
    return element("span", element("i", class_=f"key line-{number}"), text, class_="entry")


def _notes(found: dict[str, Any]) -> list[str]:
    before, after, chance = found["before"]["ece"], found["after"]["ece"], found["ece_by_chance"]
    temperature, kept = found["temperature"], found.get("kept")
    lines = [
        f"Expected calibration error {format_value(after)} (uncalibrated {format_value(before)}); so few examples give "
        f"{format_value(chance)} by chance alone. Temperature {', '.join(f'{t:.2f}' for t in temperature)}."
    ]
    if found["in_sample"]:
        lines[0] += " Temperature and thresholds were set on these very examples."
    lines.append(
        f"Kept with a confidence of at least {format_value(found['refer_below'], 2)}: {percent(kept['coverage'])}, of "
        f"which {format_value(kept['accuracy'])} are right; the others are referred to a reader."
        if kept
        else "Every example is referred to a reader."
    )
    if is_number(found.get("num_novel")):
        faint = found.get("num_faint") or 0
        lines.append(f"Said to be unlike the training images: {found['num_novel']}; fainter than these: {faint}.")
    return lines
