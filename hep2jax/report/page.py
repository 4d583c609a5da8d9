"""Puts the page together: headline, a chapter for each split, curves, configuration, environment and time."""

import dataclasses
import importlib.resources
import json
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax.report import cells, charts, figures, provenance
from hep2jax.report.cells import CellItem
from hep2jax.report.classification import classification
from hep2jax.report.gallery import atlas, display_width, gallery, prepare
from hep2jax.report.history import History, read_history
from hep2jax.report.markup import MISSING, Html, count, element, escape, join
from hep2jax.report.overlays import Display, GalleryItem
from hep2jax.report.specimens import specimen_table

Gallery = Sequence[GalleryItem] | Sequence[CellItem]
"""What a split shows: whole fields or single cells."""

SPLIT_ORDER = ("test", "validation", "train")
PROTOCOLS = {
    "contest": "the data set's own split",
    "holdout": "split by lists of ids",
    "kfold": "{num_folds}-fold over specimens, fold {fold} held out",
    "loso": "leave one specimen out, number {fold} held out",
    "blocked": "{num_folds} contiguous blocks of ids in each pattern, block {fold} held out",
    "random_cells": "{num_folds} parts of the cells drawn at random, part {fold} held out",
}
LEAK = "cells of one specimen are in train and test"
NO_LEAK = "no specimen on two sides"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pictures:
    """What a split shows: fields, ready for the page and grouped by specimen, or cells."""

    fields: Sequence[Sequence[Display]] = ()
    cells: Sequence[CellItem] = ()


def render(
    workdir: pathlib.Path,
    metrics: dict[str, dict[str, Any]],
    items: Mapping[str, Gallery],
    environment: dict[str, Any],
    timings: dict[str, Any],
) -> str:
    """The page as one string; arguments as in `write_report`."""
    history = read_history(workdir / "metrics.jsonl")
    config = _read_config(workdir / "config.json")
    pictures = _prepared(items)
    splits = sorted(dict.fromkeys([*metrics, *items]), key=_rank)
    first = splits[0] if splits else ""
    name = workdir.resolve().name
    sections = [_split(split, metrics.get(split, {}), pictures.get(split, _Pictures()), config) for split in splits]
    sections += [
        _section("Curves", charts.curves(history, _unit(metrics.get(first, {})))),
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
        "headline": _headline(name, config, metrics.get(first, {}), history, environment.get("date")),
        "summary": _summary(first, metrics.get(first, {}), pictures.get(first, _Pictures())),
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


def _prepared(items: Mapping[str, Gallery]) -> dict[str, _Pictures]:
    fields = {split: [item for item in shown if isinstance(item, GalleryItem)] for split, shown in items.items()}
    width = display_width(sum(map(len, fields.values())))
    return {
        split: _Pictures(
            fields=prepare(f"split{i}", fields[split], width),
            cells=[item for item in shown if isinstance(item, CellItem)],
        )
        for i, (split, shown) in enumerate(items.items())
    }


def _rank(split: str) -> tuple[int, str]:
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)


def _headline(name: str, config: dict, figures_of_split: dict, history: History, date: str | None) -> Html:
    data, model = config.get("data", {}), config.get("model", {})
    facts = {
        "Data set": data.get("name"),
        "Network": _network(model),
        "Protocol": _protocol(figures_of_split.get("protocol"), data),
        "Specimens": _leakage(figures_of_split),
        "Trained": None if history.last_step is None else count(history.last_step, "step"),
        "Parameters": element("code", history.params_digest) if history.params_digest else None,
        "Measured": date,
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
    return element("span", _leakage_words(section), class_="badge bad" if section["specimen_leakage"] else "badge ok")


def _leakage_words(section: dict[str, Any]) -> str:
    return section.get("leakage_note") or (LEAK if section["specimen_leakage"] else NO_LEAK)


def _unit(section: dict[str, Any]) -> str:
    return "cell" if figures.of_cells(section) else "image"


def _summary(split: str, section: dict[str, Any], pictures: _Pictures) -> Html:
    """The first split's key figures and a picture of each pattern."""
    if not (section or pictures.fields or pictures.cells):
        return element("p", "Nothing was evaluated.", class_="muted")
    coverage = _coverage(section)
    caption = element("p", f"Measured on {split}", f": {coverage}" if coverage else "", ".", class_="muted")
    classes = _classes(section, pictures)
    shown = cells.atlas(pictures.cells, classes) if pictures.cells else atlas(pictures.fields, classes)
    return join([figures.tiles(section), caption, shown])


def _classes(section: dict[str, Any], pictures: _Pictures) -> list[str]:
    """Pattern names in class order; without figures, the order in which the fields' votes name them."""
    votes = (name for fields in pictures.fields for field in fields for name in field.item.votes)
    named = [str(name) for name in section.get("classes") or ()] or list(dict.fromkeys(votes))
    return [*named, *(name for name in cells.names(pictures.cells) if name not in named)]


def _split(split: str, section: dict, pictures: _Pictures, config: dict) -> tuple[str, Html]:
    classes = _classes(section, pictures)
    title = split.capitalize()
    body = join(
        [
            figures.side_by_side(*_classifications(section, classes)),
            figures.side_by_side(specimen_table(section.get("specimens") or [], classes), class_="wide"),
            figures.side_by_side(
                figures.pixel_panel(section), figures.pattern_pixels_panel(section, classes), class_="wide"
            ),
            gallery(pictures.fields, classes, section.get("num_specimens")),
            cells.gallery(pictures.cells, classes, section.get("confusion") or []),
        ]
    )
    notes = [_coverage(section), _protocol(section.get("protocol"), config.get("data", {}))]
    notes += [_leakage_words(section)] if section.get("specimen_leakage") else []
    notes += section.get("notes") or []
    return _section(title, body, " · ".join(note for note in notes if note))


def _classifications(section: dict[str, Any], classes: Sequence[str]) -> list[Html]:
    """Of specimens, of examples and of intensities; of cells, which such a run is trained on, the cells first."""
    unit = _unit(section)
    graded = classification("Intensity", "specimen", section.get("intensity") or {}, (), label=_plain_label)
    panels = [
        classification("By specimen", "specimen", section.get("specimen") or {}, classes),
        classification(f"By {unit}", unit, section, classes),
    ]
    return panels[::-1] if figures.of_cells(section) else [*panels, graded]


def _plain_label(_: int, name: str) -> Html:
    """Of a class that is no pattern, so that it carries no pattern's colour."""
    return element("span", name)


def _coverage(section: dict[str, Any]) -> str:
    """`48 images of 24 specimens`, as far as it is known."""
    numbers = ((section.get("num_examples"), _unit(section)), (section.get("num_specimens"), "specimen"))
    return " of ".join(count(number, noun) for number, noun in numbers if number)


def _section(title: str, body: Html, note: str = "") -> tuple[str, Html]:
    if not body:
        return title, Html("")
    heading = element("h2", title, element("small", note) if note else None)
    return title, element("section", heading, body, id=_anchor(title), class_="chapter")


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
