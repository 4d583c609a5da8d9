"""All folds of a protocol: train a network for each fold, then pool their results into one set of metrics."""

import copy
import pathlib
from collections.abc import Sequence

from hep2jax import config as configs
from hep2jax import files, report, tasks
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.progress import say
from hep2jax.training import environment, evaluation, loop, workdir


def run(config: Config, directory: pathlib.Path) -> tuple[tasks.Task, tasks.SplitMetrics]:
    """Train and measure every fold in `directory/fold-NN`, and pool the results in `directory/report`.

    A finished fold is not trained again; if it was last measured on other data or with other settings, it is measured
    again. Results are pooled, not averaged over folds: a held-out specimen has one class, so a single fold has no MCA.

    Returns:
        The task, and the metrics pooled over the test splits.

    Raises:
        UsageError: the protocol has only one fold on this data set.
    """
    task = tasks.load(config)
    groups = protocols.folds(config.data, task.name, task.items)
    if len(groups) < 2:
        raise UsageError(
            f"data.protocol={config.data.protocol} has one fold on {task.name}; use kfold, loso, blocked or "
            "random_cells, or train with hep2jax.main"
        )
    results, partitions = [], []
    for fold, held_out in enumerate(groups):
        say(f"fold {fold + 1} of {len(groups)}: {protocols.shortened(held_out)} held out")
        fold_config = _fold_config(config, fold)
        partitions.append(protocols.partition(fold_config.data, task.name, task.items, task.classes))
        results += loop.complete(fold_config, directory / f"fold-{fold:02d}", task)["test"]
    pooled = tasks.SplitMetrics(
        measured=task.metrics(results),
        protocol=f"{config.data.protocol}, {len(groups)} folds pooled",
        specimen_leakage=any(part.specimen_leakage for part in partitions),
        leakage_note=leakage_note(partitions),
    )
    metrics = {"test": to_dict(pooled)}
    files.write_json(directory / "report" / "metrics.json", metrics)
    records = {"test": [task.to_record(result) for result in results]}
    files.write_json(directory / "report" / evaluation.RECORDS, {"classes": list(task.classes), "splits": records})
    configs.save(config, directory / workdir.CONFIG)
    facts = environment.describe()
    report.write_report(directory, metrics=metrics, gallery={}, layout=task.layout, environment=facts, timings={})
    say(task.describe("pooled test", pooled.measured))
    return task, pooled


def leakage_note(partitions: Sequence[protocols.Partition]) -> str:
    """The note of the first fold with specimen leakage, and how many folds have it."""
    notes = [part.leakage_note for part in partitions if part.specimen_leakage]
    if not notes:
        return partitions[0].leakage_note
    return f"{notes[0]}; so or alike in {len(notes)} of {len(partitions)} folds"


def _fold_config(config: Config, fold: int) -> Config:
    config = copy.deepcopy(config)
    config.data.fold = fold
    return config
