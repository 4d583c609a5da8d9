"""The origin of the results: configuration, environment and times."""

import json
from collections.abc import Iterator
from typing import Any

from hep2jax.config import Config, to_dict
from hep2jax.report.markup import MISSING, Html, element, is_number, percent

PHASES = {
    "init": "start-up",
    "compile": "compilation",
    "data_wait": "waiting for data",
    "host_to_device": "copying to the devices",
    "step": "training steps",
    "evaluation": "evaluation",
    "checkpoint": "checkpoints",
    "lost": "steps done again",
    "idle": "everything else",
}


def configuration(values: dict[str, Any]) -> Html:
    """All keys by section, with marks on values that differ from the default; empty without a configuration."""
    if not values:
        return Html("")
    defaults = to_dict(Config())
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    blocks = [_section("experiment", top, defaults)] if top else []
    blocks += [
        _section(name, section, defaults.get(name, {})) for name, section in values.items() if isinstance(section, dict)
    ]
    return element("div", *blocks, class_="blocks")


def _section(name: str, values: dict[str, Any], defaults: Any) -> Html:
    section_defaults = defaults if isinstance(defaults, dict) else {}
    rows = [_setting(key, value, section_defaults) for key, value in values.items()]
    return element("section", element("h4", name), element("dl", *rows), class_="block")


def _setting(key: str, value: Any, defaults: dict[str, Any]) -> Html:
    changed = key in defaults and defaults[key] != value
    note = element("small", "default ", readable(defaults[key])) if changed else None
    return element(
        "div", element("dt", key), element("dd", readable(value), note), class_="changed" if changed else None
    )


def environment(values: dict[str, Any]) -> Html:
    """Versions, devices and other recorded facts about the machine; nested keys are joined by dots."""
    if not values:
        return Html("")
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    blocks = [_facts("run", top)] if top else []
    blocks += [_facts(key, dict(_flat(value))) for key, value in values.items() if isinstance(value, dict)]
    return element("div", *blocks, class_="blocks")


def _facts(name: str, values: dict[str, Any]) -> Html:
    rows = [element("div", element("dt", key), element("dd", readable(value))) for key, value in values.items()]
    return element("section", element("h4", name), element("dl", *rows), class_="block")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def readable(value: Any) -> str:
    """A value for people: `none`, `yes` and `no`, lists with commas, numbers without trailing zeros."""
    if value is None or value == "":
        return "none" if value is None else "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(readable(part) for part in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def timing_bars(timings: dict[str, Any]) -> Html:
    """One bar for each phase, as a share of the total; empty if there are no timings.

    Without a `total`, the sum of the phases is used. Overlapping phases are not corrected for.
    """
    phases = {key: value for key, value in timings.items() if key != "total" and is_number(value)}
    total = timings.get("total")
    if not is_number(total) or not total:
        total = sum(phases.values())
    if not phases or not total:
        return Html("")
    rest = total - sum(phases.values())
    if rest > 0.01 * total:
        phases["idle"] = phases.get("idle", 0.0) + rest
    rows = [_timing(PHASES.get(name, name), seconds, seconds / total) for name, seconds in phases.items()]
    return element("div", *rows, _timing("total", total, None), class_="timings")


def _timing(name: str, seconds: float, share: float | None) -> Html:
    bar = None
    if share is not None:
        bar = element("i", element("i", style=f"width:{min(100 * share, 100):.1f}%"), class_="bar", aria_hidden="true")
    return element(
        "div",
        element("span", name),
        element("span", bar),
        element("span", duration(seconds), class_="number"),
        element("span", MISSING if share is None else percent(share), class_="number"),
        class_="timing" if share is not None else "timing total",
    )


def duration(seconds: float) -> str:
    """A duration in a readable form: `42 ms`, `3.2 s`, `12 min 05 s`, `2 h 03 min`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
