"""The mean prediction of several finished runs on the same cells, measured as one reader (an ensemble).

    python -m scripts.average --member=DIR --member=DIR [--member=DIR ...] --workdir=DIR

Reads what each run's evaluation kept: to have their mean on new data, measure the runs there first (`--mode=evaluate`).
Which runs to average is to be decided before their metrics are seen. The last line is one JSON object.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from hep2jax import cli
from hep2jax.data.sets.cells import CellSet
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.models import CLASSIFIERS
from hep2jax.tasks import SplitMetrics
from hep2jax.tasks.cells import CellTask
from hep2jax.training import workdir

Records = list[dict[str, Any]]
_CONDITIONS = ("protocol", "specimen_leakage", "leakage_note")


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_multi_string("member", [], "A finished run of a cell network; once for each.")
    flags.DEFINE_string("workdir", None, "Where the metrics are written, in the layout of a run's report.")


def main(argv: Sequence[str]) -> None:
    """Average, say the metrics of every side and, last, one JSON object."""
    del argv
    members, directory = flags.FLAGS.member, flags.FLAGS.workdir
    if len(members) < 2 or not directory:
        raise UsageError("name at least two runs and a place: --member=DIR --member=DIR --workdir=DIR")
    print(json.dumps(average([pathlib.Path(run) for run in members], pathlib.Path(directory))))


def average(runs: Sequence[pathlib.Path], directory: pathlib.Path) -> dict[str, Any]:
    """Write `report/metrics.json` and `report/records.json`; returns the headline metrics by side.

    Every cell's probabilities are the mean of what the runs give it; its specimen is that of the first run's records.

    Args:
        runs: finished work directories of cell networks.
        directory: of the average.

    Raises:
        UsageError: a run that is not finished or reads no cells; runs of other patterns, protocols or cells.
    """
    config = workdir.open_for_reading(runs[0])
    if config.model.name not in CLASSIFIERS:
        raise UsageError(f"--run={runs[0]}: holds no cell network, but {config.model.name}")
    kept, sections = [_read(run, "records.json") for run in runs], [_read(run, "metrics.json") for run in runs]
    classes = tuple(kept[0]["classes"])
    for run, own in zip(runs, kept, strict=True):
        if tuple(own["classes"]) != classes or own["splits"].keys() != kept[0]["splits"].keys():
            raise UsageError(f"--member={run}: has other patterns or sides than {runs[0]}")
    task = CellTask(config, CellSet(name=config.data.name, classes=classes, cells=()))
    sides: dict[str, Records] = {}
    averaged: dict[str, SplitMetrics] = {}
    for side in kept[0]["splits"]:
        conditions = [{name: section[side][name] for name in _CONDITIONS} for section in sections]
        if any(other != conditions[0] for other in conditions):
            raise UsageError(f"the runs were not measured under one protocol (side {side})")
        sides[side] = _mean({str(run): own["splits"][side] for run, own in zip(runs, kept, strict=True)})
        rows = [task.from_record(record) for record in sides[side]]
        averaged[side] = SplitMetrics(measured=task.metrics(rows), **conditions[0])
        print(task.describe(side, averaged[side].measured))
    workdir.write_json(directory / "report" / "records.json", {"classes": list(classes), "splits": sides})
    workdir.write_json(directory / "report" / "metrics.json", {side: to_dict(own) for side, own in averaged.items()})
    return {side: task.summary(own.measured) for side, own in averaged.items()}


def _read(run: pathlib.Path, name: str) -> dict[str, Any]:
    path = run / "report" / name
    if not path.exists():
        raise UsageError(f"--member={run}: is not finished, {path.name} is not there")
    return json.loads(path.read_text())


def _mean(runs: Mapping[str, Records]) -> Records:
    """The first run's records with the mean of all runs' probabilities."""
    by_cell = {run: {record["identifier"]: record for record in records} for run, records in runs.items()}
    first, *_ = by_cell.values()
    for run, cells in by_cell.items():
        if {name: cell["truth"] for name, cell in cells.items()} != {n: cell["truth"] for n, cell in first.items()}:
            raise UsageError(f"--member={run}: was measured on other cells")
    means = {
        name: np.mean([cells[name]["probabilities"] for cells in by_cell.values()], axis=0).round(6).tolist()
        for name in first
    }
    return [record | {"probabilities": means[name]} for name, record in first.items()]


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
