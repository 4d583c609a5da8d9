"""Writes `profile/profile.json` and `profile/profile.html`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from hep2jax import files
from hep2jax.config import Config, to_dict
from hep2jax.perf.profiling.summary import Profile
from hep2jax.report import tables as sheets
from hep2jax.report.markup import element
from hep2jax.report.tables import Table
from hep2jax.training import environment
from hep2jax.training import state as states


def facts(config: Config, num_steps: int, trace: str) -> dict[str, Any]:
    """Description of the profiled program and machine; `trace` is the path of the trace relative to the page."""
    device = jax.devices()[0]
    return {
        "network": config.model.name,
        "image_side": config.data.crop_size,
        "global_batch_size": config.train.global_batch_size,
        "compute_dtype": states.compute_dtype(config).name,
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "steps": num_steps,
        "jax": jax.__version__,
        "environment": environment.describe(),
        "trace": trace,
        "config": to_dict(config),
    }


def write(
    folder: pathlib.Path,
    description: dict[str, Any],
    tables: Sequence[Table],
    profile: Profile,
    measured: dict[str, Any],
) -> None:
    """Write both files in `folder`."""
    values = {name: value for name, value in measured.items() if name not in ("text", "num_steps")}
    rows = {"modules": _shares(profile, "modules"), "operations": _shares(profile, "operations")}
    files.write_json(folder / "profile.json", {**description, **values, "step_seconds": profile.step_seconds, **rows})
    (folder / "profile.html").write_text(_page(description, tables))


def _shares(profile: Profile, name: str) -> list[dict[str, Any]]:
    """Modules or operations of a profile, with their share of the step time."""
    return [
        {**dataclasses.asdict(row), "seconds": row.seconds, "share": row.seconds / profile.step_seconds}
        for row in getattr(profile, name)
    ]


def _page(description: dict[str, Any], tables: Sequence[Table]) -> str:
    side, batch = description["image_side"], description["global_batch_size"]
    run_environment = description["environment"]
    return sheets.page(
        f"{description['network']}, profile of a training step",
        element(
            "p",
            f"{description['steps']} steps with {batch} images of {side} x {side}, {description['compute_dtype']}, on "
            f"{description['devices']}; jax {description['jax']}. The trace, for xprof: {description['trace']}.",
            class_="muted",
        ),
        element(
            "p",
            f"{run_environment['date']}, on {run_environment['machine']['host']} "
            f"({run_environment['machine']['processor']}); commit {run_environment['commit']}; "
            f"{run_environment['command']}",
            class_="muted",
        ),
        element("section", sheets.html(tables)),
    )
