"""`mean`: the mean of several trained readers of cells, as a reader of its own."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np
from typing_extensions import override

from hep2jax import remote
from hep2jax.config import Config, DataConfig
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets.cells import CellSet, Crop
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.models.classifier import Classifier
from hep2jax.tasks.base import Evaluator
from hep2jax.tasks.cells import CellReader, CellResult, CellTask, CutCell, Scores, result_of
from hep2jax.tasks.fisher import FisherTask
from hep2jax.tasks.reading import Parameters
from hep2jax.training import restoring, workdir
from hep2jax.training import state as states
from hep2jax.training.state import Network, Tree

_KEY = "model.members"


class MeanEvaluator:
    """The compiled members. Each prepares the cells as it was trained, so they need not agree in that."""

    def __init__(self, config: Config, network: Network | None, mesh: jax.sharding.Mesh) -> None:
        del network
        self.members = open_members(config, mesh)

    def read(self, parameters: Parameters, cells: Sequence[CutCell]) -> Scores:
        """The mean of the members' scores of at least one cell.

        Raises:
            UsageError: a member was trained anew since their mean was made.
        """
        kept = parameters[0]["digests"].tolist()
        if kept != [member.digest for member in self.members]:
            raise UsageError(f"{_KEY}: a member was trained anew since this mean was made; make it anew, too")
        return np.mean([member.read(cells) for member in self.members], axis=0)


class MeanReader(CellReader):
    """Reads cells, with their masks if a member needs them."""

    evaluator_class = MeanEvaluator


class MeanTask(CellTask):
    """Classification of cells by the mean of the members' probabilities, and of specimens as by any reader of cells."""

    networks: ClassVar[Any] = {"mean": MeanReader}
    classifies_cells = False
    is_fitted = True
    reader_class = MeanReader
    evaluator_class: ClassVar[Any] = MeanEvaluator

    def __init__(self, config: Config, cells: CellSet, crops: Sequence[Crop]) -> None:
        """`crops` are the cells before any preprocessing, in the same order."""
        super().__init__(config, cells)
        self.examples = crops

    @override
    @classmethod
    def load(cls, config: Config) -> Self:
        classes, crops = cell_sets.read_crops(config.data)
        return cls(config, cell_sets.from_crops(config.data.name, classes, crops, config.data), crops)

    @override
    @classmethod
    def resolve(cls, config: Config) -> Config:
        """Needs `model.members`. How cells are prepared is the members' affair: the keys for it get plain values."""
        if len(_directories(config)) < 2:
            raise UsageError(
                f"{_KEY}='{config.model.members}': must name at least two work directories, with commas between"
            )
        plain = {"crop_size": Classifier.side, "cell_fit": "stretch", "normalise": "none"}
        plain |= {"cell_margin": -1.0, "masked": False, "mean_centring": False}
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **plain))

    @override
    def fit(self, indices: Sequence[int], mesh: jax.sharding.Mesh) -> tuple[Parameters, Tree]:
        """Open the members; nothing is learned. The parameters say which members these were."""
        del indices
        members = open_members(self.config, mesh)
        for directory, member in zip(_directories(self.config), members, strict=True):
            if member.classes != self.classes:
                raise UsageError(
                    f"{_KEY}={directory}: reads {', '.join(member.classes)}; {self.name} has {', '.join(self.classes)}"
                )
        sizes = [states.num_parameters(member.parameters[0]) for member in members]
        return ({"digests": np.array([member.digest for member in members]), "sizes": np.array(sizes)}, {}), {}

    @override
    def count_parameters(self, parameters: Tree) -> int:
        """Those of all members."""
        return int(parameters["sizes"].sum())

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[CellResult]:
        evaluator = MeanEvaluator(self.config, network, mesh)

        def measure(parameters: Parameters, indices: Sequence[int]) -> list[CellResult]:
            rows = evaluator.read(parameters, [self.examples[i] for i in indices])
            return [result_of(self.cells.cells[i], row) for i, row in zip(indices, rows, strict=True)]

        return Evaluator(range(len(self.examples)), measure)


def open_members(config: Config, mesh: jax.sharding.Mesh) -> "list[TrainedCells]":
    """The members, in order.

    Raises:
        UsageError: as for `open_trained`, or a member takes another channel.
    """
    members = [open_trained(directory, _KEY, config.data, mesh) for directory in _directories(config)]
    for directory, member in zip(_directories(config), members, strict=True):
        if member.config.data.channel != config.data.channel:
            raise UsageError(
                f"{_KEY}={directory}: takes data.channel={member.config.data.channel}, here it is {config.data.channel}"
            )
    return members


def _directories(config: Config) -> list[str]:
    return [name.strip() for name in config.model.members.split(",") if name.strip()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedCells:
    """A trained reader of cells, opened for another that builds on it."""

    config: Config
    classes: tuple[str, ...]
    evaluator: Any
    parameters: Parameters

    def read(self, cells: Sequence[CutCell]) -> Scores:
        """The scores of at least one cell, prepared as in training."""
        return self.evaluator.read(self.parameters, cells)

    @functools.cached_property
    def digest(self) -> str:
        """Of everything that its scores depend on."""
        learned, statistics = self.parameters
        return fingerprint(self.config.data, self.config.model, *map(states.params_digest, (learned, statistics)))


def open_trained(directory: str, key: str, data: DataConfig, mesh: jax.sharding.Mesh) -> TrainedCells:
    """Open a work directory, in whose name {fold} stands for `data.fold` in two digits.

    Args:
        directory: the work directory, also in object storage.
        key: the configuration key that names it, for messages.
        data: the data that will be read.
        mesh: the devices.

    Raises:
        UsageError: the directory holds no trained reader of cells, or one that learned from another division of the
            same data set, so that it may know the specimens that are to be read.
    """
    directory = directory.replace("{fold}", f"{data.fold:02d}")
    with remote.opened(directory, key) as local:
        config, classes = workdir.open_for_reading(local, key), workdir.read_classes(local)
        kind = next((kind for kind in (CellTask, FisherTask, MeanTask) if kind.reads(config)), None)
        if kind is None:
            raise UsageError(f"{key}={directory}: holds no reader of single cells, but {config.model.name}")
        _check_division(f"{key}={directory}", data, config.data)
        network = kind.make_network(config, classes)
        parameters, _ = restoring.averaged(config, local, network, mesh)
    evaluator = kind.evaluator_class(config, network, mesh)
    return TrainedCells(config=config, classes=classes, evaluator=evaluator, parameters=parameters)


_DIVISION = ("protocol", "fold", "num_folds", "protocol_seed", "split_lists")


def _check_division(name: str, read: DataConfig, learned: DataConfig) -> None:
    if read.name != learned.name or read.protocol == learned.protocol == "contest":
        return
    for key in _DIVISION:
        there, here = getattr(learned, key), getattr(read, key)
        if there != here:
            raise UsageError(
                f"{name}: was trained with data.{key}={there}, here it is {here}, so that it may know the specimens "
                "that are to be read"
            )
