"""Assembles the page: headline, a chapter for each split, curves, configuration, environment and times."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax import files
from hep2jax.report import charts, panels, provenance
from hep2jax.report.calibration import calibration_panel
from hep2jax.report.cells import CellItem
from hep2jax.report.classification import classification
from hep2jax.report.document import chapter, document, facts
from hep2jax.report.history import History, read_history
from hep2jax.report.layout import Classification, Layout
from hep2jax.report.markup import MISSING, Html, count, element, join
from hep2jax.report.overlays import GalleryItem
from hep2jax.report.specimens import specimen_table

Gallery = Sequence[GalleryItem] | Sequence[CellItem]
"""The examples of a split: fields or single cells."""

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


def render(
    workdir: pathlib.Path,
    metrics: dict[str, dict[str, Any]],
    items: Mapping[str, Gallery],
    layout: Layout,
    environment: dict[str, Any],
    timings: dict[str, Any],
) -> str:
    """Return the page as a string; the arguments are those of `write_report`."""
    history = read_history(workdir / "metrics.jsonl")
    config = _read_config(workdir / "config.json")
    pictures = layout.pictures.prepare(items)
    splits = sorted(dict.fromkeys([*metrics, *items]), key=split_rank)
    first = splits[0] if splits else ""
    name = workdir.resolve().name
    sections = [_split(split, metrics.get(split, {}), pictures.get(split, ()), layout, config) for split in splits]
    sections += [
        chapter("Curves", charts.curves(history, layout.unit)),
        chapter("Configuration", provenance.configuration(config), "Marked keys differ from the default."),
        chapter("Environment", provenance.environment(environment)),
        chapter("Time", provenance.timing_bars(timings)),
    ]
    return document(
        title=f"{name}: hep2jax report",
        headline=_headline(name, config, metrics.get(first, {}), history, environment.get("date")),
        summary=_summary(first, metrics.get(first, {}), pictures.get(first, ()), layout),
        chapters=sections,
    )


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """Read the configuration without validation, so that runs of older versions can be reported."""
    values = files.kept(path)
    return values if all(isinstance(values.get(name, {}), dict) for name in ("data", "model")) else {}


def split_rank(split: str) -> tuple[int, str]:
    """Sorts the sides in the order in which they are shown."""
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)


def _headline(name: str, config: dict, split_metrics: dict, history: History, date: str | None) -> Html:
    data, model = config.get("data", {}), config.get("model", {})
    entries = {
        "Data set": data.get("name"),
        "Network": _network(model),
        "Protocol": _protocol(split_metrics.get("protocol"), data),
        "Specimens": _leakage(split_metrics),
        "Trained": None if history.last_step is None else count(history.last_step, "step"),
        "Parameters": element("code", history.params_digest) if history.params_digest else None,
        "Measured": date,
    }
    return join([element("h1", name), facts(entries)])


def _network(model: dict[str, Any]) -> str | None:
    width = model.get("width", 1.0)
    return model["name"] + (f", width × {width:g}" if width != 1.0 else "") if "name" in model else None


def _protocol(protocol: str | None, data: dict[str, Any]) -> str | None:
    """Description of the protocol; the name of an unknown protocol is returned unchanged."""
    protocol = protocol or data.get("protocol")
    description = PROTOCOLS.get(str(protocol))
    if description is None:
        return protocol
    return description.format(num_folds=data.get("num_folds", MISSING), fold=data.get("fold", MISSING))


def _leakage(section: dict[str, Any]) -> Html | None:
    if "specimen_leakage" not in section:
        return None
    return element("span", _leakage_note(section), class_="badge bad" if section["specimen_leakage"] else "badge ok")


def _leakage_note(section: dict[str, Any]) -> str:
    return section.get("leakage_note") or (LEAK if section["specimen_leakage"] else NO_LEAK)


def _summary(split: str, section: dict[str, Any], pictures: Any, layout: Layout) -> Html:
    """The key metrics of the first split and a picture of each pattern."""
    if not (section or pictures):
        return element("p", "Nothing was evaluated.", class_="muted")
    coverage = _coverage(section, layout.unit)
    caption = element("p", f"Measured on {split}", f": {coverage}" if coverage else "", ".", class_="muted")
    drawn = layout.pictures.atlas(pictures, _classes(section, pictures, layout))
    return join([panels.tiles(section, layout.key_metrics), caption, drawn])


def _classes(section: dict[str, Any], pictures: Any, layout: Layout) -> list[str]:
    """Pattern names in class order, followed by names that only occur in the pictures."""
    named = [str(name) for name in section.get("classes") or ()]
    return list(dict.fromkeys([*named, *layout.pictures.names(pictures)]))


def _split(split: str, section: dict, pictures: Any, layout: Layout, config: dict) -> tuple[str, Html]:
    classes = _classes(section, pictures, layout)
    title = split.capitalize()
    body = join(
        [
            panels.side_by_side(*(_classification(panel, section, classes) for panel in layout.classifications)),
            panels.side_by_side(calibration_panel(section.get("calibration")), class_="wide"),
            panels.side_by_side(specimen_table(section.get("specimens") or [], classes), class_="wide"),
            panels.side_by_side(
                panels.pixel_panel(section), panels.pattern_pixels_panel(section, classes), class_="wide"
            ),
            layout.pictures.gallery(pictures, classes, section),
        ]
    )
    notes = [_coverage(section, layout.unit), _protocol(section.get("protocol"), config.get("data", {}))]
    notes += [_leakage_note(section)] if section.get("specimen_leakage") else []
    notes += section.get("notes") or []
    return chapter(title, body, " · ".join(note for note in notes if note))


def _classification(panel: Classification, section: dict[str, Any], classes: Sequence[str]) -> Html:
    values = section if panel.section is None else section.get(panel.section) or {}
    if panel.of_patterns:
        return classification(panel.title, panel.unit, values, classes)
    return classification(panel.title, panel.unit, values, (), label=_plain_label)


def _plain_label(_: int, name: str) -> Html:
    """The label of a class that is not a pattern, without the colour of a pattern."""
    return element("span", name)


def _coverage(section: dict[str, Any], unit: str) -> str:
    """The numbers of examples and specimens that are known, such as `48 images of 24 specimens`."""
    numbers = ((section.get("num_examples"), unit), (section.get("num_specimens"), "specimen"))
    return " of ".join(count(number, noun) for number, noun in numbers if number)
