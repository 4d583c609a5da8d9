"""Averages the predictions of several finished runs on the same cells, and evaluates this ensemble.

    python -m scripts.average --member=DIR --member=DIR [--member=DIR ...] --workdir=DIR

DIR is the work directory of a run or of a cross-validation. The predictions are read from its evaluation: to average
them on new data, first evaluate the runs on these data (`--mode=evaluate`). Decide which runs to average before seeing
their metrics. The last line of the output is one JSON object.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from hep2jax import cli, files, remote, tasks
from hep2jax import config as configs
from hep2jax.data.sets.cells import CellSet
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.tasks import SplitMetrics
from hep2jax.tasks.cells import CellTask
from hep2jax.training import workdir

Records = list[dict[str, Any]]
_CONDITIONS = ("protocol", "specimen_leakage", "leakage_note")


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_multi_string(
        "member", [], "Work directory of a finished run of a cell network; repeat it for each run."
    )
    flags.DEFINE_string("workdir", None, "Directory for the metrics, with the files of a run's report.")


def main(argv: Sequence[str]) -> None:
    """Average, then print the metrics of every split and, as the last line, one JSON object."""
    del argv
    members, directory = flags.FLAGS.member, flags.FLAGS.workdir
    if len(members) < 2 or not directory:
        raise UsageError("name at least two runs and an output directory: --member=DIR --member=DIR --workdir=DIR")
    runs = [remote.local_folder(run, "--member") for run in members]
    print(json.dumps(average(runs, remote.local_folder(directory, "--workdir"))))


def average(runs: Sequence[pathlib.Path], directory: pathlib.Path) -> dict[str, Any]:
    """Write `config.json`, `report/metrics.json` and `report/records.json`; returns the main metrics by split.

    The probabilities of a cell are the mean over the runs; its other values are from the records of the first run.

    Args:
        runs: work directories of finished runs of cell networks.
        directory: directory for the results of the ensemble.

    Raises:
        UsageError: a run is not finished or has no cell network, or the runs differ in patterns, protocol or cells.
    """
    config = workdir.open_for_reading(runs[0])
    if not issubclass(tasks.kind(config), CellTask):
        raise UsageError(f"--run={runs[0]}: holds no cell network, but {config.model.name}")
    records, sections = [_read(run, "records.json") for run in runs], [_read(run, "metrics.json") for run in runs]
    classes = tuple(records[0]["classes"])
    for run, run_records in zip(runs, records, strict=True):
        if tuple(run_records["classes"]) != classes or run_records["splits"].keys() != records[0]["splits"].keys():
            raise UsageError(f"--member={run}: has other patterns or splits than {runs[0]}")
    task = CellTask(config, CellSet(name=config.data.name, classes=classes, cells=()))
    mean_records: dict[str, Records] = {}
    averaged: dict[str, SplitMetrics] = {}
    for split in records[0]["splits"]:
        conditions = [{name: section[split][name] for name in _CONDITIONS} for section in sections]
        if any(condition != conditions[0] for condition in conditions):
            raise UsageError(f"the runs were not measured under one protocol (split {split})")
        mean_records[split] = _mean(
            {str(run): run_records["splits"][split] for run, run_records in zip(runs, records, strict=True)}
        )
        rows = [task.from_record(record) for record in mean_records[split]]
        averaged[split] = SplitMetrics(measured=task.metrics(rows), **conditions[0])
        print(task.describe(split, averaged[split].measured))
    files.write_json(directory / "report" / "records.json", {"classes": list(classes), "splits": mean_records})
    files.write_json(
        directory / "report" / "metrics.json", {split: to_dict(metrics) for split, metrics in averaged.items()}
    )
    configs.save(config, directory / workdir.CONFIG)  # so that a mean can be a member of another
    return {split: task.summary(metrics.measured) for split, metrics in averaged.items()}


def _read(run: pathlib.Path, name: str) -> dict[str, Any]:
    path = run / "report" / name
    if not path.exists():
        raise UsageError(f"--member={run}: is not finished, {path.name} is not there")
    return json.loads(path.read_text())


def _mean(runs: Mapping[str, Records]) -> Records:
    """The records of the first run, with the probabilities averaged over all runs."""
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
