"""What a network is for: whole fields pixel by pixel, or single cells. One interface for every phase of a run."""

from collections.abc import Sequence

from hep2jax.config import CLASSIFIERS, Config
from hep2jax.data import cells, sources
from hep2jax.tasks.base import Evaluator, Parameters, Task
from hep2jax.tasks.cell_task import CellTask
from hep2jax.tasks.field_task import FieldTask

__all__ = ["Evaluator", "Parameters", "Task", "load", "num_outputs"]


def load(config: Config) -> Task:
    """Read the configured data set for the configured network, building it first if it is absent."""
    if config.model.name in CLASSIFIERS:
        return CellTask(config, cells.load(config.data))
    return FieldTask(config, sources.load(config.data))


def num_outputs(config: Config, classes: Sequence[str]) -> int:
    """Channels of the configured network's output: the patterns, and background where it labels pixels."""
    return len(classes) + (config.model.name not in CLASSIFIERS)
