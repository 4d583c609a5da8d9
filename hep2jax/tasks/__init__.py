"""The tasks that networks are trained for: one file for each kind of task, one interface (`base.Task`), a registry."""

from collections.abc import Sequence

from hep2jax import config as configs
from hep2jax.config import Config
from hep2jax.data.sets import prepare
from hep2jax.errors import UsageError
from hep2jax.tasks.bags import BagTask
from hep2jax.tasks.base import Evaluator, SplitMetrics, Task
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fields import FieldTask
from hep2jax.tasks.fisher import FisherTask
from hep2jax.tasks.joint import JointTask
from hep2jax.tasks.labels import LabelsTask
from hep2jax.tasks.mean import MeanTask
from hep2jax.tasks.reading import Input, Parameters, Reader, Reading

__all__ = [
    "Input",
    "KINDS",
    "CellTask",
    "Evaluator",
    "FisherTask",
    "Parameters",
    "Reader",
    "Reading",
    "SplitMetrics",
    "Task",
    "kind",
    "load",
    "num_outputs",
    "patterns",
    "resolve",
]

KINDS: tuple[type[Task], ...] = (FieldTask, CellTask, FisherTask, MeanTask, BagTask, LabelsTask, JointTask)
"""Every kind of task. A network and a data set together determine one of them."""


def kind(config: Config) -> type[Task]:
    """The kind of task of the configured network on the configured data set.

    Raises:
        UsageError: there is no network of that name.
    """
    names = [name for task in KINDS for name in task.networks]
    configs.check_choice("model.name", config.model.name, tuple(dict.fromkeys(names)))
    return next(task for task in KINDS if task.reads(config))


def resolve(config: Config) -> Config:
    """The validated configuration, with the values that its network determines, such as a `data.crop_size` of 0.

    Raises:
        UsageError: a value is invalid; the message names its key.
    """
    configs.validate(config)
    configs.check_choice("data.name", config.data.name, tuple(prepare.BUILDERS))
    task = kind(config)
    if config.augment.mixup and not task.classifies_cells:
        raise UsageError(
            f"augment.mixup={config.augment.mixup}: only networks that classify cells can be trained with mixup, and "
            f"model.name='{config.model.name}' is not one of them"
        )
    if config.data.along:
        configs.check_choice("data.along", config.data.along, tuple(prepare.BUILDERS))
        if not task.classifies_cells:
            raise UsageError(
                f"data.along={config.data.along}: only networks that classify cells learn from a second data set in "
                f"this way, and model.name='{config.model.name}' is not one of them"
            )
    for key in ("cell_reader", "unsure_band"):
        value = getattr(config.evaluation, key)
        if value and not task.labels_pixels:
            raise UsageError(
                f"evaluation.{key}={value}: is for networks that label pixels, and "
                f"model.name='{config.model.name}' is not one of them"
            )
    return task.resolve(config)


def load(config: Config) -> Task:
    """Read the configured data set for the configured network, preparing it first if it is absent."""
    return kind(config).load(config)


def patterns(config: Config) -> tuple[str, ...]:
    """The patterns of the configured data set, in the order of their labels. See `prepare.patterns`."""
    return kind(config).patterns(config)


def num_outputs(config: Config, classes: Sequence[str]) -> int:
    """Channels of the configured network's output: one per pattern, and one for background if it labels pixels."""
    return kind(config).count_outputs(classes)
