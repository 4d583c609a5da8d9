"""The systems and configurations for `scripts.compare_specimens`, and its table."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax import config as configs
from hep2jax import config_files, tasks
from hep2jax.config import Config, DataConfig
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.progress import say
from hep2jax.specimens.systems import SYSTEMS, ImageNetFeatures, System

PARTS = {
    "hep2_synthetic": {"cells": "cnn", "pixels": "fcn", "mil": "mil", "joint": "joint"},
    "icpr2012": {
        "cells": "cnn:icpr2012",
        "pixels": "dsfcn:icpr2012",
        "mil": "mil:icpr2012",
        "joint": "joint:icpr2012",
    },
}
"""The network configurations of each data set by part, as FILE or FILE:VARIANT of `configs/`."""
ADJUSTED = {
    "cells.evaluation.batch_size": 32,  # a specimen has a few dozen cells
    "pixels.evaluation.baselines": False,
}
CELLS_BY_DEFAULT = ("cells-*-prevalence", "cells-*-network-mean_probability", "cells-*-pretrained_svm-histogram_svm")
"""Single-cell systems that run by default, together with all other systems."""


def read_parts(data: str, settings: Sequence[str]) -> dict[str, Config]:
    """The configuration of each part with `ADJUSTED` and `settings`; raises UsageError for an invalid setting."""
    parts = {part: config_files.load(name) for part, name in PARTS[data].items()}
    for key, value in ADJUSTED.items():
        _assign(parts, key, value)
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or key.count(".") != 2 or key.split(".")[0] not in parts:
            raise UsageError(f"--set={text}: write PART.section.key=value with PART of {', '.join(parts)}")
        _assign(parts, key, _parse(value))
    return {part: tasks.resolve(config) for part, config in parts.items()}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(parts: Mapping[str, Config], key: str, value: Any) -> None:
    part, section, leaf = key.split(".")
    values = configs.to_dict(parts[part])
    if leaf not in values.get(section, {}):
        raise UsageError(f"unknown key '{key}': did you mean '{part}.{configs.nearest_key(f'{section}.{leaf}')}'?")
    setattr(getattr(parts[part], section), leaf, value)


def choose(patterns: str) -> list[str]:
    """Names of the systems that match the shell patterns; without patterns, the default systems."""
    requested = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    for pattern in requested:
        if not fnmatch.filter(SYSTEMS, pattern):
            raise UsageError(f"--systems={pattern}: no such system; there are {', '.join(SYSTEMS)}")
    if not requested:
        requested = [*CELLS_BY_DEFAULT, *(name for name in SYSTEMS if not name.startswith("cells-"))]
    return [name for name in SYSTEMS if any(fnmatch.fnmatch(name, pattern) for pattern in requested)]


def make_systems(
    names: Sequence[str], parts: Mapping[str, Config], features: ImageNetFeatures
) -> tuple[list[System], dict[str, str]]:
    """The systems that can be made from these parts, and the reasons why the others cannot."""
    systems, unavailable = [], {}
    for name in names:
        try:
            systems.append(SYSTEMS[name](parts, features))
        except KeyError as error:
            unavailable[name] = f"needs a configuration of the part {error} for this data set"
            say(f"{name}: left out: {unavailable[name]}")
    return systems, unavailable


def divide(data: DataConfig, fields: FieldSet) -> list[protocols.Partition]:
    """The partitions of all folds of the protocol."""
    parts = []
    for fold in range(len(protocols.folds(data, fields.name, fields.items))):
        data.fold = fold
        parts.append(protocols.partition(data, fields.name, fields.items, fields.classes))
    return parts


def points_lost_to_finding(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Loss of specimen accuracy and MCA caused by segmentation: with annotated cells minus with segmented cells.

    In percentage points, by name of the system with segmented cells, `cells-<finder>-<reader>-<rule>`.
    """
    lost = {}
    for name, metrics in systems.items():
        family, _, rest = name.partition("-")
        finder, _, reading = rest.partition("-")
        annotated = systems.get(f"cells-true-{reading}")
        if family == "cells" and finder != "true" and annotated is not None:
            lost[name] = {key: round(100 * (annotated[key] - metrics[key]), 2) for key in ("accuracy", "mca")}
    return lost


def render(data: str, result: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    networks = ", ".join(f"{part} `{name}`" for part, name in result["networks"].items())
    lines = [
        f"### {data}: systems that read whole specimens",
        "",
        f"Protocol: {result['protocol']}; {result['leakage_note']}. Networks: {networks}. Per cent; a specimen that is "
        "left out counts as an error. Points lost: accuracy with annotated cells minus accuracy with segmented ones. "
        "One field: accuracy from a single field; gain: accuracy from all fields minus accuracy from one field. "
        "Intervals: docs/intervals.md; for accuracy, MCA and intensity, specimens are independent trials.",
        "",
        "| system | family | accuracy | MCA | points lost | one field | gain | Dice | JA | intensity | s a specimen "
        "| left out |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lost = result["points_lost_to_finding"]
    lines += [_line(name, row, lost.get(name)) for name, row in result["systems"].items()]
    notes = [
        f"left out by `{n}`: {s}: {why}" for n, row in result["systems"].items() for s, why in row["left_out"].items()
    ]
    notes += [f"`{name}` was not run: {why}" for name, why in result["unavailable"].items()]
    notes += result["missing_fields"]
    return "\n".join(lines + ([""] + [f"* {note}" for note in notes] if notes else []))


def _line(name: str, row: Mapping[str, Any], lost: Mapping[str, float] | None) -> str:
    cells = [_percent(row, key) for key in ("accuracy", "mca")]
    cells.append("–" if lost is None else f"{lost['accuracy']:+.1f}")
    keys = ("one_field_accuracy", "gain_of_fields", "Dice", "JA", "intensity_accuracy")
    cells += [_percent(row, key) for key in keys]
    cells += [f"{row['seconds_per_specimen']:.2f}", str(len(row["left_out"]))]
    return f"| `{name}` | {row['family']} | {' | '.join(cells)} |"


def _percent(row: Mapping[str, Any], key: str) -> str:
    value, interval = row[key], row[f"{key}_ci95"]
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def summary(data: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics for the last line of the output."""
    keys = ("accuracy", "mca", "one_field_accuracy", "gain_of_fields", "Dice", "JA", "intensity_accuracy")
    systems = {
        name: {key: row[key] for key in (*keys, "seconds_per_specimen")} | {"num_left_out": len(row["left_out"])}
        for name, row in result["systems"].items()
    }
    conditions = {key: result[key] for key in ("protocol", "specimen_leakage", "points_lost_to_finding", "unavailable")}
    return {"data": data, **conditions, "systems": systems}
