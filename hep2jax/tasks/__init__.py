"""What a network is for: whole images, by pixels, tiles or patches, or single cells. One interface for every phase."""

from collections.abc import Sequence

from hep2jax.config import BAG_READERS, CLASSIFIERS, JOINT_READERS, SEGMENTERS, Config
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets import images, prepare
from hep2jax.tasks.bags import BagTask
from hep2jax.tasks.base import Evaluator, Parameters, Task
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fields import FieldTask
from hep2jax.tasks.joint import JointTask
from hep2jax.tasks.labels import LabelsTask

__all__ = ["Evaluator", "Parameters", "Task", "load", "num_outputs", "patterns", "reads_labels"]


def load(config: Config) -> Task:
    """Read the configured data set for the configured network, building it first if it is absent."""
    if config.model.name in CLASSIFIERS:
        return CellTask(config, cell_sets.load(config.data))
    if reads_labels(config):
        return LabelsTask(config, images.load(config.data))
    fields = field_sets.load(config.data)
    if config.model.name in BAG_READERS:
        return BagTask(config, fields)
    return JointTask(config, fields) if config.model.name in JOINT_READERS else FieldTask(config, fields)


def reads_labels(config: Config) -> bool:
    """Whether the network says of each pattern by itself if an image has it, as the data set's images have several."""
    return config.model.name in BAG_READERS and images.has_several(config.data)


def patterns(config: Config) -> tuple[str, ...]:
    """The patterns of the configured data set, in the order of their labels; the set need not be there."""
    features = prepare.features(config.data.name, config.data.builder_config)
    label = features["patterns"].feature if reads_labels(config) else features["pattern"]
    return tuple(label.names)


def num_outputs(config: Config, classes: Sequence[str]) -> int:
    """Channels of the configured network's output: the patterns, and background where it labels pixels with them."""
    return len(classes) + (config.model.name in SEGMENTERS)
