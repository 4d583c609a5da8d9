"""All folds of a protocol: train each, then pool what was counted into one set of figures."""

import copy
import json
import pathlib
from typing import Any

from hep2jax import config as configs
from hep2jax import evaluate, report, results, train, workdir
from hep2jax.config import Config
from hep2jax.data import protocols, sources
from hep2jax.errors import UsageError
from hep2jax.progress import say


def run(config: Config, directory: pathlib.Path) -> dict[str, Any]:
    """Train and measure every fold in `directory/fold-NN`, finished ones are kept; pooled figures of the test sides.

    Counts are pooled, not averaged: a held-out specimen has one class, so no fold alone has an MCA.
    """
    if config.data.protocol == "contest":
        raise UsageError("data.protocol=contest has one fold; take kfold or loso, or train with hep2jax.main")
    fields = sources.load(config.data)
    groups = protocols.folds(config.data, fields)
    records = []
    for fold in range(len(groups)):
        say(f"fold {fold + 1} of {len(groups)}: {', '.join(groups[fold])} held out")
        records += _run_fold(config, directory / f"fold-{fold:02d}", fold)
    rows = [results.from_record(record) for record in records]
    protocol = f"{config.data.protocol}, by specimen, {len(groups)} folds pooled"
    figures = results.side_metrics(config, fields.classes, rows, protocol, leakage=False)
    workdir.write_json(directory / "report" / "metrics.json", {"test": figures})
    configs.save(config, directory / workdir.CONFIG)
    environment = evaluate.environment()
    report.write_report(directory, metrics={"test": figures}, gallery={}, environment=environment, timings={})
    say(results.describe_side("pooled test", figures))
    return figures


def _run_fold(config: Config, directory: pathlib.Path, fold: int) -> list[dict[str, Any]]:
    """The records of the fold's held-out fields; training continues where it stopped."""
    config = copy.deepcopy(config)
    config.data.fold = fold
    path = directory / "report" / "fields.json"
    if path.exists():
        workdir.open_for_training(directory, config)  # refuses a fold of another experiment
    else:
        train.run(config, directory)
    return json.loads(path.read_text())["sides"]["test"]
