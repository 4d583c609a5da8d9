"""Draws the curves of a run as inline SVG, in the colours of the page so that they work in light and dark mode."""

import dataclasses
import math
import re
from collections.abc import Sequence

from hep2jax.report.history import History
from hep2jax.report.markup import Html, count, element, escape, join

WIDTH, HEIGHT = 350, 180
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 30
MAX_POINTS = 300
MAX_SERIES = 6
METRICS = ("mca", "map", "dice", "aca", "seg", "ja")
"""Metrics of a held-out split that are drawn, as the last words of their names, most informative first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart: a label and points (step, value) in the order of the steps."""

    label: str
    points: list[tuple[float, float]]
    not_finite: int = 0
    """Number of values that were NaN or infinite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A mapping from a range of values to a range of SVG units, with ticks at round values."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def __call__(self, value: float) -> float:
        """The SVG coordinate of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(history: History, unit: str = "image") -> Html:
    """All charts that the history has points for, in a grid; empty if there are none.

    Args:
        history: history of the run.
        unit: word for a training example, `image` or `cell`.
    """
    title, held_out = _held_out_metrics(history)
    charts = [
        _chart("Loss", _named(history, "loss")),
        _chart(title, held_out, top=1.0),
        _chart("Learning rate", _named(history, "learning_rate")),
        _chart(f"{unit.capitalize()}s per second", _named(history, "images_per_second")),
        _chart("Share of the time waiting for data", _named(history, "data_wait_share")),
        _chart("Gradient norm", _named(history, "grad_norm")),
    ]
    drawn = [chart for chart in charts if chart]
    return element("div", *drawn, class_="charts") if drawn else Html("")


def _named(history: History, name: str) -> list[Series]:
    keys = dict.fromkeys([*history.series, *history.not_finite])
    return [_series(history, key, label=key[0]) for key in keys if key[1] == name]


def _held_out_metrics(history: History) -> tuple[str, list[Series]]:
    """Title and lines of the chart of the metrics on held-out splits."""
    ranked = []
    for split, name in history.series:
        last_word = _split_words(name)[-1].lower()
        if split != "train" and last_word in METRICS:
            ranked.append((METRICS.index(last_word), split, name))
    chosen = sorted(ranked)[:MAX_SERIES]
    splits = {split for _, split, _ in chosen}
    if len(splits) == 1:
        title, labels = f"Metrics on {splits.pop()}", [_label(name) for _, _, name in chosen]
    else:
        title, labels = "Metrics on held-out data", [f"{split}, {_label(name)}" for _, split, name in chosen]
    keys = [(split, name) for _, split, name in chosen]
    return title, [_series(history, key, label) for key, label in zip(keys, labels, strict=True)]


def _split_words(name: str) -> list[str]:
    return re.split(r"[._/]", name)


def _label(name: str) -> str:
    """`specimen_mca` → `specimen MCA`."""
    return " ".join(word.upper() if word in ("aca", "mca") else word for word in _split_words(name))


def _series(history: History, key: tuple[str, str], label: str) -> Series:
    points = list(history.series.get(key, {}).items())
    return Series(label=label, points=thin(points), not_finite=len(history.not_finite.get(key, ())))


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: consecutive points are averaged in groups of equal size, both steps and values."""
    size = math.ceil(len(points) / limit)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def nice_ticks(low: float, high: float, max_ticks: int = 5) -> list[float]:
    """Multiples of a round step (1, 2 or 5 times a power of ten) that cover the range from `low` to `high`."""
    min_step = (high - low) / (max_ticks - 1)
    power = 10.0 ** math.floor(math.log10(min_step))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= min_step * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def short(value: float) -> str:
    """A tick label with three significant digits, thousands as k, millions as M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _chart(title: str, series: list[Series], top: float | None = None) -> Html:
    """One chart; empty if no line has two points and all values are finite."""
    if not any(len(line.points) > 1 or line.not_finite for line in series):
        return Html("")
    drawn = [line for line in series if line.points]
    axes = _axes(drawn, top) if drawn else None
    image = _drawing(title, drawn, *axes) if axes else Html("")
    legend = element("p", *(_legend_entry(i, line) for i, line in enumerate(drawn)), class_="legend")
    notes = [f"{line.label}: {count(line.not_finite, 'value')} not finite" for line in series if line.not_finite]
    note = element("p", "; ".join(notes), class_="warning") if notes else Html("")
    return element("figure", element("figcaption", title), image, legend, note, class_="chart")


def _legend_entry(index: int, line: Series) -> Html:
    reading = element("output", class_="reading")
    return element("span", element("i", class_=f"key line-{index}"), line.label, " ", reading, class_="entry")


def _axes(series: list[Series], top: float | None) -> tuple[Axis, Axis]:
    steps = [step for line in series for step, _ in line.points]
    values = [value for line in series for _, value in line.points]
    low, high = (min(values), top) if top is not None else (min(0.0, *values), max(values))
    low_step, high_step = min(steps), max(steps)
    x_ticks = [tick for tick in nice_ticks(low_step, max(high_step, low_step + 1)) if low_step <= tick <= high_step]
    y_ticks = nice_ticks(low, max(high, low + 1e-9))
    horizontal = Axis(low=low_step, high=max(high_step, low_step + 1), start=LEFT, end=WIDTH - RIGHT, ticks=x_ticks)
    return horizontal, Axis(low=y_ticks[0], high=y_ticks[-1], start=HEIGHT - BOTTOM, end=TOP, ticks=y_ticks)


def _drawing(title: str, series: list[Series], x: Axis, y: Axis) -> Html:
    parts = [_y_tick(y, tick) for tick in y.ticks] + [_x_tick(x, tick) for tick in x.ticks]
    parts.append(_text("step", x=WIDTH - RIGHT, y=HEIGHT - 2, text_anchor="end", class_="unit"))
    parts += [_line(index, line, x, y) for index, line in enumerate(series)]
    parts.append(element("line", class_="crosshair", y1=TOP, y2=HEIGHT - BOTTOM))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over steps")


def plane(title: str, marks: Sequence[Html], x: Axis, y: Axis, *, unit: str, legend: Sequence[Html]) -> Html:
    """A chart of anything but steps: `marks` in the coordinates of both axes; `unit` names the horizontal one."""
    ticks = [_y_tick(y, tick) for tick in y.ticks] + [_x_tick(x, tick) for tick in x.ticks]
    name = _text(unit, x=WIDTH - RIGHT, y=HEIGHT - 2, text_anchor="end", class_="unit")
    image = element("svg", *ticks, name, *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    return element(
        "figure", element("figcaption", title), image, element("p", *legend, class_="legend"), class_="chart plane"
    )


def _y_tick(axis: Axis, tick: float) -> Html:
    y = f"{axis(tick):.1f}"
    rule = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="rule")
    return join([rule, _text(short(tick), x=LEFT - 6, y=y, dy="0.32em", text_anchor="end")])


def _x_tick(axis: Axis, tick: float) -> Html:
    return _text(short(tick), x=f"{axis(tick):.1f}", y=HEIGHT - BOTTOM + 14, text_anchor="middle")


def _text(text: str, **attributes: object) -> Html:
    return element("text", escape(text), **attributes)


def _line(index: int, line: Series, x: Axis, y: Axis) -> Html:
    coordinates = [(f"{x(step):.1f}", f"{y(value):.1f}") for step, value in line.points]
    if len(coordinates) == 1:
        return element("circle", cx=coordinates[0][0], cy=coordinates[0][1], r=3, class_=f"dot line-{index}")
    return element(
        "polyline",
        points=" ".join(f"{px},{py}" for px, py in coordinates),
        class_=f"line-{index}",
        data_steps=" ".join(f"{step:.0f}" for step, _ in line.points),
        data_values=" ".join(f"{value:.4g}" for _, value in line.points),
    )
