"""The public functions of `hep2jax`: everything that the commands do, from Python.

`hep2jax.__all__` names what is public.
"""

import json
import os
import pathlib
from typing import Any

import jax
from absl import flags
from flax import nnx

from hep2jax import config_files, remote, tasks
from hep2jax.config import Config
from hep2jax.specimens.fields_by_cells import FieldsByCells
from hep2jax.tasks import Reader, Task
from hep2jax.tasks import Reading as Reading  # public, as what a reader returns
from hep2jax.training import evaluation, loop
from hep2jax.training import state as states
from hep2jax.training import workdir as workdirs


def load(workdir: str | os.PathLike[str]) -> Reader:
    """Load the trained network of a work directory (its best checkpoint), which reads images.

    As for the other functions, the directory is a folder, or one in object storage (`gs://…`, `s3://…`).

    Raises:
        UsageError: the directory holds no run of hep2jax, or no finished checkpoint.
    """
    return _open(workdir)


def _open(workdir: str | os.PathLike[str], key: str = "--workdir") -> Reader:
    return reader_of(evaluation.load(workdir, key))


def reader_of(trained: evaluation.Trained) -> Reader:
    """The reader of what was loaded from a work directory."""
    kind = tasks.kind(trained.config)
    return kind.reader_class(
        trained.config, trained.classes, trained.network, trained.parameters, trained.nuclear_size, trained.calibration
    )


def load_single_cell_system(
    workdir: str | os.PathLike[str], *, nuclear_diameter: float, segmenter: str | os.PathLike[str] | None = None
) -> Reader:
    """Load a trained network of single cells, which then reads whole fields, and specimens, by their cells.

    Args:
        workdir: the work directory of the network of cells.
        nuclear_diameter: typical diameter of a nucleus in pixels of the images, 4 to 2,000.
        segmenter: work directory of a network of fields that finds the cells; None: Otsu's threshold of the logarithm
            of intensity over background finds them. A watershed separates those that touch.

    Raises:
        UsageError: as for `load`; or the network is none of cells, or the segmenter none of fields.
    """
    finder = None if segmenter is None else _open(segmenter, "--segmenter")
    return FieldsByCells(evaluation.load(workdir), nuclear_diameter, finder)


def load_config(name: str) -> Config:
    """Load a configuration by the name of its file, such as `fcn`. It can be changed and passed to the other functions.

    Args:
        name: in the form that `--config` takes (see `config_files.load`).

    Raises:
        UsageError: there is no such file, or it does not return a configuration.
    """
    return config_files.load(name)


def build_model(config: Config) -> nnx.Module:
    """Build the configured network for grey images and the patterns of the configured data set, with fresh parameters.

    The data set does not have to be prepared.
    """
    config = tasks.resolve(config)
    network = states.make_network(config, tasks.num_outputs(config, tasks.patterns(config)))
    return network.build(jax.random.key(config.seed))


def load_dataset(config: Config) -> Task:
    """Read the configured data set for the configured network; it is prepared first if it is absent.

    Returns:
        A task: `classes` are the patterns of the data set, `items` its examples as protocols see them, and `examples`
        the same with pixels and annotations.

    Raises:
        UsageError: the owner's files are missing or damaged, or the data set does not fit the network.
    """
    return tasks.load(tasks.resolve(config))


def train(config: Config, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train, starting from the last checkpoint of the work directory, then evaluate and write the report.

    This is what `hep2jax train` does.

    Returns:
        The content of `report/metrics.json`: the metrics of each evaluated split.

    Raises:
        UsageError: invalid values, missing data, or a directory that belongs to another run.
        DivergedError: the loss is not finite.
    """
    _use_flags_of_libraries()
    config = tasks.resolve(config)
    with remote.opened(workdir, writes=True) as directory:
        loop.train(config, directory)
        return _read_metrics(directory)


def evaluate(workdir: str | os.PathLike[str], config: Config | None = None) -> dict[str, Any]:
    """Evaluate the network of a work directory and write its report, as `hep2jax evaluate` does.

    Args:
        workdir: the work directory of a run.
        config: which data are evaluated, and how. None: the configuration of the training run.

    Returns:
        The content of `report/metrics.json`, as for `train`.

    Raises:
        UsageError: no finished checkpoint, missing data, or data with other patterns.
    """
    _use_flags_of_libraries()
    with remote.opened(workdir, writes=True) as directory:
        evaluation.run(config or workdirs.open_for_reading(directory), directory)
        return _read_metrics(directory)


def _read_metrics(directory: pathlib.Path) -> dict[str, Any]:
    return json.loads((directory / "report" / "metrics.json").read_text())


def _use_flags_of_libraries() -> None:
    """Mark absl's flags as parsed, which only commands do: grain reads one of them, and that fails before parsing."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
