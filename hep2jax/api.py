"""The public functions, which `hep2jax` itself offers: everything that the commands do, from Python."""

import json
import os
import pathlib
from typing import Any

import jax
from absl import flags
from flax import nnx

from hep2jax import config_files, tasks
from hep2jax.config import Config
from hep2jax.tasks import Reader, Reading, Task
from hep2jax.training import evaluation, loop
from hep2jax.training import state as states
from hep2jax.training import workdir as workdirs

__all__ = ["Reader", "Reading", "build_model", "evaluate", "load", "load_config", "load_dataset", "train"]


def load(workdir: str | os.PathLike[str]) -> Reader:
    """The trained network of a work directory (its best checkpoint), ready to read images.

    Raises:
        UsageError: the directory holds no run of ours, or no finished checkpoint.
    """
    directory = pathlib.Path(workdir)
    config = workdirs.open_for_reading(directory)
    parameters, classes = evaluation.load_parameters(directory)
    network = states.make_network(config, tasks.num_outputs(config, classes))
    return tasks.kind(config).reader_class(config, classes, network, parameters)


def load_config(name: str) -> Config:
    """A configuration by the name of its file, such as `fcn`, to be changed and handed to the other functions.

    Args:
        name: as `--config` takes it (see `config_files.load`).

    Raises:
        UsageError: there is no such file, or it makes no configuration.
    """
    return config_files.load(name)


def build_model(config: Config) -> nnx.Module:
    """The configured network with fresh parameters, for the patterns of the configured data set, grey images.

    The data set need not be there.
    """
    config = tasks.resolve(config)
    network = states.make_network(config, tasks.num_outputs(config, tasks.patterns(config)))
    return network.build(jax.random.key(config.seed))


def load_dataset(config: Config) -> Task:
    """The configured data set, read for the configured network; it is prepared first if it is absent.

    `classes` of what is returned are its patterns, `items` its examples as protocols see them, `examples` the same
    with pixels and truth.

    Raises:
        UsageError: the owner's files are missing or damaged, or the set does not fit the network.
    """
    return tasks.load(tasks.resolve(config))


def train(config: Config, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train where the work directory stopped, then measure and write the report, as `hep2jax train` does.

    Returns:
        What is in `report/metrics.json`: the figures of each measured side.

    Raises:
        UsageError: values that no run can have, missing data, or a directory that belongs to another run.
        DivergedError: the loss is not finite.
    """
    _use_flags_of_libraries()
    loop.train(tasks.resolve(config), pathlib.Path(workdir))
    return _figures(pathlib.Path(workdir))


def evaluate(workdir: str | os.PathLike[str], config: Config | None = None) -> dict[str, Any]:
    """Measure the network of a work directory and write its report, as `hep2jax evaluate` does.

    Args:
        workdir: of a run.
        config: names the data to measure and how; None: what the run was trained with.

    Returns:
        As `train`.

    Raises:
        UsageError: no finished checkpoint, missing data, or data of other patterns.
    """
    _use_flags_of_libraries()
    directory = pathlib.Path(workdir)
    evaluation.run(config or workdirs.open_for_reading(directory), directory)
    return _figures(directory)


def _figures(directory: pathlib.Path) -> dict[str, Any]:
    return json.loads((directory / "report" / "metrics.json").read_text())


def _use_flags_of_libraries() -> None:
    """grain reads an absl flag of its own, which it may only when flags were parsed; outside commands nobody does."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
