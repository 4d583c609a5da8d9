"""Writes `profile/compile.json` and `profile/compile.html`."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from hep2jax import tasks
from hep2jax.config import Config, to_dict
from hep2jax.perf.aot import tables
from hep2jax.perf.aot.estimate import LATENCY, NO_OVERLAP, Estimate, Generation, scaling
from hep2jax.report import tables as sheets
from hep2jax.report.markup import Html, element


def write(
    folder: pathlib.Path, config: Config, num_outputs: int, generations: Sequence[Generation], versions: dict[str, str]
) -> None:
    """Write both files in `folder`, which is created; `versions` are those of the compiler and of jax."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = _facts(config, num_outputs) | {"versions": versions}
    values = {
        "notice": tables.NOTICE,
        **facts,
        "assumptions": [NO_OVERLAP, LATENCY],
        "config": to_dict(config),
        "generations": {generation.name: _generation(generation) for generation in generations},
    }
    (folder / "compile.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    (folder / "compile.html").write_text(_page(facts, config, generations))


def _facts(config: Config, num_outputs: int) -> dict[str, Any]:
    return {
        "network": config.model.name,
        "image_side": config.data.crop_size,
        "outputs": tasks.kind(config).describe_outputs(num_outputs),
        "compute_dtype": "bfloat16",
    }


def _generation(generation: Generation) -> dict[str, Any]:
    best = generation.recommended
    failed = [compiled for compiled in [*generation.sweep, *generation.slices] if not compiled.is_done]
    return {
        "recommended_images_per_chip": best.images_per_chip if best else None,
        "sweep": [_estimate(e) for e in generation.sweep_estimates],
        "slices": [_estimate(e) for e in generation.estimates],
        "scaling": [dataclasses.asdict(point) | {"scales": point.scales} for point in scaling(generation.estimates)],
        "not_compiled": [
            {"slice": compiled.target.name, "images_per_chip": compiled.images_per_chip, **compiled.record}
            for compiled in failed
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    values = dataclasses.asdict(estimate)
    values["memory"]["total"] = estimate.memory.total
    for row, padding in zip(values["padding"], estimate.padding, strict=True):
        row["waste"] = padding.waste
    for name in ("step_seconds", "mfu", "images_per_second_per_chip", "fits"):
        values[name] = getattr(estimate, name)
    return values


def _page(facts: dict[str, Any], config: Config, generations: Sequence[Generation]) -> str:
    title = f"{facts['network']} compiled for TPUs"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    side, outputs, dtype = facts["image_side"], facts["outputs"], facts["compute_dtype"]
    return sheets.page(
        title,
        element("p", f"{tables.NOTICE[0].upper()}{tables.NOTICE[1:]}.", class_="notice"),
        element("p", f"Training step on images of {side} x {side}, {outputs}, {dtype}. {versions}.", class_="muted"),
        *(_section(generation, config) for generation in generations),
    )


def _section(generation: Generation, config: Config) -> Html:
    tables_html = sheets.html(tables.generation_tables(generation, config), tables.NOTICE)
    return element("section", element("h2", f"TPU {generation.name}"), tables_html)
