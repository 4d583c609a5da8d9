"""Puts the page together: headline, a chapter for each split, curves, configuration, environment and time."""

import importlib.resources
import json
import pathlib
import string
from collections.abc import Sequence
from typing import Any

from hep2jax.report import charts, figures, provenance
from hep2jax.report.classification import classification
from hep2jax.report.gallery import atlas, display_width, gallery, prepare
from hep2jax.report.history import History, read_history
from hep2jax.report.markup import MISSING, Html, count, element, escape, join
from hep2jax.report.overlays import Display, GalleryItem

SPLIT_ORDER = ("test", "validation", "train")
PROTOCOLS = {
    "contest": "the data set's own split",
    "kfold": "{num_folds}-fold over specimens, fold {fold} held out",
    "loso": "leave one specimen out, number {fold} held out",
}
LEAK = "cells of one specimen are in train and test"
NO_LEAK = "no specimen on two sides"


def render(
    workdir: pathlib.Path,
    metrics: dict[str, dict[str, Any]],
    items: dict[str, list[GalleryItem]],
    environment: dict[str, Any],
    timings: dict[str, Any],
) -> str:
    """The page as one string; arguments as in `write_report`."""
    history = read_history(workdir / "metrics.jsonl")
    config = _read_config(workdir / "config.json")
    specimens = _prepared(items)
    splits = sorted(dict.fromkeys([*metrics, *items]), key=_rank)
    first = splits[0] if splits else ""
    name = workdir.resolve().name
    sections = [_split(split, metrics.get(split, {}), specimens.get(split, []), config) for split in splits]
    sections += [
        _section("Curves", charts.curves(history)),
        _section("Configuration", provenance.configuration(config), "Marked keys differ from the default."),
        _section("Environment", provenance.environment(environment)),
        _section("Time", provenance.timing_bars(timings)),
    ]
    shown = [(title, body) for title, body in sections if body]
    parts = {
        "title": escape(f"{name}: hep2jax report"),
        "style": _resource("style.css"),
        "script": _resource("script.js"),
        "navigation": join(element("a", title, href=f"#{_anchor(title)}") for title, _ in shown),
        "headline": _headline(name, config, metrics.get(first, {}), history),
        "summary": _summary(first, metrics.get(first, {}), specimens.get(first, [])),
        "sections": join(body for _, body in shown),
    }
    return string.Template(_resource("page.html")).substitute(parts)


def _resource(name: str) -> str:
    return importlib.resources.files("hep2jax.report").joinpath(name).read_text(encoding="utf-8")


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """The run's configuration as it was written, so that a report of an older version can still be made."""
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return values if isinstance(values, dict) else {}


def _prepared(items: dict[str, list[GalleryItem]]) -> dict[str, list[list[Display]]]:
    width = display_width(sum(len(fields) for fields in items.values()))
    return {split: prepare(f"split{i}", fields, width) for i, (split, fields) in enumerate(items.items())}


def _rank(split: str) -> tuple[int, str]:
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)


def _headline(name: str, config: dict, figures_of_split: dict, history: History) -> Html:
    data, model = config.get("data", {}), config.get("model", {})
    facts = {
        "Data set": data.get("name"),
        "Network": _network(model),
        "Protocol": _protocol(figures_of_split.get("protocol"), data),
        "Specimens": _leakage(figures_of_split),
        "Trained": None if history.last_step is None else count(history.last_step, "step"),
        "Parameters": element("code", history.params_digest) if history.params_digest else None,
    }
    known = [element("div", element("dt", key), element("dd", value)) for key, value in facts.items() if value]
    return join([element("h1", name), element("dl", *known, class_="facts")])


def _network(model: dict[str, Any]) -> str | None:
    width = model.get("width", 1.0)
    return model["name"] + (f", width × {width:g}" if width != 1.0 else "") if "name" in model else None


def _protocol(protocol: str | None, data: dict[str, Any]) -> str | None:
    """The protocol in words; one that is not ours to explain stands as it was written."""
    protocol = protocol or data.get("protocol")
    words = PROTOCOLS.get(str(protocol))
    if words is None:
        return protocol
    return words.format(num_folds=data.get("num_folds", MISSING), fold=data.get("fold", MISSING))


def _leakage(section: dict[str, Any]) -> Html | None:
    if "specimen_leakage" not in section:
        return None
    leaks = bool(section["specimen_leakage"])
    return element("span", LEAK if leaks else NO_LEAK, class_="badge bad" if leaks else "badge ok")


def _summary(split: str, section: dict[str, Any], specimens: Sequence[Sequence[Display]]) -> Html:
    """The first split's key figures and a picture of each pattern."""
    if not (section or specimens):
        return element("p", "Nothing was evaluated.", class_="muted")
    coverage = _coverage(section)
    caption = element("p", f"Measured on {split}", f": {coverage}" if coverage else "", ".", class_="muted")
    return join([figures.tiles(section), caption, atlas(specimens, _classes(section, specimens))])


def _classes(section: dict[str, Any], specimens: Sequence[Sequence[Display]]) -> list[str]:
    """Pattern names in class order; without figures, the order in which the fields' votes name them."""
    if section.get("classes"):
        return [str(name) for name in section["classes"]]
    return list(dict.fromkeys(name for fields in specimens for field in fields for name in field.item.votes))


def _split(split: str, section: dict, specimens: Sequence[Sequence[Display]], config: dict) -> tuple[str, Html]:
    classes = _classes(section, specimens)
    title = split.capitalize()
    body = join(
        [
            figures.side_by_side(
                classification("By specimen", "specimen", section.get("specimen") or {}, classes),
                classification("By image", "image", section, classes),
            ),
            figures.side_by_side(
                figures.pixel_panel(section), figures.pattern_pixels_panel(section, classes), class_="wide"
            ),
            gallery(specimens, classes),
        ]
    )
    notes = [_coverage(section), _protocol(section.get("protocol"), config.get("data", {}))]
    notes += [LEAK] if section.get("specimen_leakage") else []
    return _section(title, body, " · ".join(note for note in notes if note))


def _coverage(section: dict[str, Any]) -> str:
    """`48 images of 24 specimens`, as far as it is known."""
    numbers = ((section.get("num_examples"), "image"), (section.get("num_specimens"), "specimen"))
    return " of ".join(count(number, noun) for number, noun in numbers if number)


def _section(title: str, body: Html, note: str = "") -> tuple[str, Html]:
    if not body:
        return title, Html("")
    heading = element("h2", title, element("small", note) if note else None)
    return title, element("section", heading, body, id=_anchor(title), class_="chapter")


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
