"""Exact evaluation of a network on every split of a partition, and its report."""

import copy
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from hep2jax import config as configs
from hep2jax import files, remote, report, tasks
from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.metrics.calibration import describe
from hep2jax.metrics.serialise import to_dict
from hep2jax.progress import say
from hep2jax.specimens.nuclear_size import NuclearSize
from hep2jax.tasks import Evaluator, Parameters, SplitMetrics, Task
from hep2jax.tasks.calibration import Calibration
from hep2jax.training import calibrating, environment, restoring, workdir
from hep2jax.training.timing import StepClock

RECORDS = "records.json"
"""File in `report/` with the result of every example, and with what identifies the evaluation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of an evaluation, by split: the indices of the examples, their results and their metrics."""

    indices: dict[str, tuple[int, ...]]
    results: dict[str, list[Any]]
    metrics: dict[str, SplitMetrics]


def measure_splits(
    task: Task, evaluator: Evaluator, parameters: Parameters, partition: protocols.Partition
) -> Evaluation:
    """Measure every split except the training split.

    If there is no other split, the training split is measured, and its metrics state that.
    """
    splits = _measured_splits(partition)
    results = {name: evaluator.measure(parameters, indices) for name, indices in splits.items()}
    metrics = {name: _split_metrics(task, name, split, partition) for name, split in results.items()}
    return Evaluation(indices=splits, results=results, metrics=metrics)


def _measured_splits(partition: protocols.Partition) -> dict[str, tuple[int, ...]]:
    splits = partition.splits()
    return {name: indices for name, indices in splits.items() if name != "train"} or splits


def _identity(task: Task, splits: Mapping[str, Sequence[int]], step: int) -> dict[str, Any]:
    """What identifies an evaluation: the examples of each split, the settings, other readers, the checkpoint's step."""
    return task.relies_on() | {
        "examples": {name: task.fingerprint(indices) for name, indices in splits.items()},
        "evaluation": dataclasses.asdict(task.config.evaluation),
        "step": step,
    }


def saved_results(
    task: Task, directory: pathlib.Path, partition: protocols.Partition, step: int
) -> dict[str, list[Any]] | None:
    """The results of every measured split, as the last evaluation saved them.

    None if there are none, or if they belong to other examples, to other evaluation settings or to another checkpoint
    than that of `step`.
    """
    path, splits = directory / "report" / RECORDS, _measured_splits(partition)
    saved = files.kept(path)
    if saved.get("identity") != _identity(task, splits, step):
        return None
    try:
        results = {name: [task.from_record(record) for record in records] for name, records in saved["splits"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged: measured again
        return None
    identifiers = {name: [result.identifier for result in split] for name, split in results.items()}
    expected = {name: [task.items[i].identifier for i in indices] for name, indices in splits.items()}
    return results if identifiers == expected else None


def _split_metrics(task: Task, split: str, results: Sequence[Any], partition: protocols.Partition) -> SplitMetrics:
    if split == "train":
        return SplitMetrics(
            measured=task.metrics(results),
            protocol=f"{partition.description}; measured on the specimens that it was trained on",
            specimen_leakage=True,
            leakage_note="measured on what it was trained on",
        )
    return SplitMetrics(
        measured=task.metrics(results),
        protocol=partition.description,
        specimen_leakage=partition.specimen_leakage,
        leakage_note=partition.leakage_note,
    )


def with_calibration(
    task: Task,
    directory: pathlib.Path,
    evaluation: Evaluation,
    partition: protocols.Partition,
    step: int,
    *,
    renews: bool,
) -> Evaluation:
    """The evaluation with how well the network's confidences hold; arguments as for `calibrating.prepare`."""
    calibration = calibrating.prepare(task, directory, partition, step, evaluation.results, renews=renews)
    if calibration is None:
        return evaluation
    metrics = {
        name: dataclasses.replace(
            split,
            calibration=calibrating.measure(calibration, task, evaluation.indices[name], evaluation.results[name]),
        )
        for name, split in evaluation.metrics.items()
    }
    return dataclasses.replace(evaluation, metrics=metrics)


def write_report(
    task: Task, directory: pathlib.Path, evaluation: Evaluation, seconds: dict[str, float], evaluated_step: int
) -> None:
    """Write `report/` and print the headline of every split. Only the process that writes files calls this.

    `seconds`: wall time by phase, and their sum as `total`.
    """
    folder = directory / "report"
    metrics = {name: to_dict(split) for name, split in evaluation.metrics.items()}
    files.write_json(folder / "metrics.json", metrics)
    records = {name: [task.to_record(result) for result in split] for name, split in evaluation.results.items()}
    identity = _identity(task, evaluation.indices, evaluated_step)
    files.write_json(folder / RECORDS, {"classes": list(task.classes), "identity": identity, "splits": records})
    page = report.write_report(
        directory,
        metrics=metrics,
        gallery={name: task.gallery(evaluation.indices[name], split) for name, split in evaluation.results.items()},
        layout=task.layout,
        environment={"evaluated_step": evaluated_step, **environment.describe()},
        timings=seconds,
    )
    for name, split_metrics in evaluation.metrics.items():
        say(task.describe(name, split_metrics.measured))
        if split_metrics.calibration:
            say(f"{name}: {describe(split_metrics.calibration)}")
    say(f"report: {page}")


def run(config: Config, directory: pathlib.Path) -> None:
    """Measure the network in a work directory on the data that `config` names, and write its report."""
    saved = workdir.open_for_reading(directory)
    workdir.check_same_network(directory, saved, config)
    config = evaluation_config(saved, config)
    _check_same_kind(directory, saved, config)
    meshes.check_divides("evaluation.batch_size", config.evaluation.batch_size)
    clock = StepClock()
    with clock.phase("init"):
        task = tasks.load(config)
        trained_classes = workdir.read_classes(directory)
        if trained_classes != task.classes:
            raise UsageError(
                f"--workdir={directory}: its network was trained on {', '.join(trained_classes)}; {task.name} has "
                f"{', '.join(task.classes)}"
            )
        partition = protocols.partition(config.data, task.name, task.items, task.classes)
        network, mesh = task.make_network(config, task.classes), meshes.make_mesh()
        parameters, step = restoring.averaged(config, directory, network, mesh)
    for note in task.notes:
        say(f"{task.name}: {note}")
    say(f"checkpoint of step {step}")
    with clock.phase("evaluation"):
        evaluation = measure_splits(task, task.evaluator(network, mesh), parameters, partition)
    if jax.process_index() == 0:
        evaluation = with_calibration(task, directory, evaluation, partition, step, renews=False)
        write_report(task, directory, evaluation, clock.seconds(), step)


def _check_same_kind(directory: pathlib.Path, saved: Config, config: Config) -> None:
    """A network trained on one pattern per image cannot be measured on images with several, nor the reverse."""
    trained, measured = tasks.kind(saved), tasks.kind(config)
    if trained is not measured:
        raise UsageError(
            f"--workdir={directory}: its network was trained on {trained.truth_description}; {config.data.name} has "
            f"{measured.truth_description}"
        )


def evaluation_config(saved: Config, given: Config) -> Config:
    """The configuration of the trained network, with the keys that concern evaluation taken from `given`."""
    config = copy.deepcopy(saved)
    for key in configs.keys(given):
        if key.metadata.get("of_evaluation"):
            section, _, leaf = key.name.partition(".")
            setattr(getattr(config, section), leaf, key.value)
    return tasks.resolve(config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """The reader of a work directory."""

    config: Config
    classes: tuple[str, ...]
    """The patterns that it was trained on."""
    network: Any
    """A `Network`; None if the reader is fitted in one piece and has none."""
    parameters: Parameters
    """Averaged parameters and statistics of its best checkpoint."""
    nuclear_size: NuclearSize | None
    """How large the cells of its training images are; None if that does not matter or is not known."""
    calibration: Calibration | None
    """None if it was trained without validation data."""


def load(directory: str | os.PathLike[str], key: str = "--workdir") -> Trained:
    """Load the reader of a work directory, which may be in object storage. `key` is the option that names it.

    Raises:
        UsageError, DamagedCheckpointError: as for `restoring.restore`; UsageError also if the directory holds no run.
    """
    with remote.opened(directory, key) as local:
        config, classes = workdir.open_for_reading(local, key), workdir.read_classes(local)
        network = tasks.kind(config).make_network(config, classes)
        parameters, step = restoring.averaged(config, local, network, meshes.make_mesh())
        size, calibration = workdir.read_nuclear_size(local), calibrating.read(local, step)
    return Trained(
        config=config,
        classes=classes,
        network=network,
        parameters=parameters,
        nuclear_size=size,
        calibration=calibration,
    )
