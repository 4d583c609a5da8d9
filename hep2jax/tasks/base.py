"""The interface that training, evaluation and folds work on."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grain
import jax
import numpy as np

from hep2jax import mesh as meshes
from hep2jax import report
from hep2jax.config import Config
from hep2jax.data.sets.items import Item
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.serialise import INLINE
from hep2jax.training.state import Network, Tree

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parameters = tuple[Tree, Tree]
"""(params, batch_stats) of the averaged network."""


class Identified(Protocol):
    """Belongs to one example."""

    @property
    def identifier(self) -> str:
        """That of the example's item."""
        ...


Result = TypeVar("Result", bound=Identified)
"""What an evaluation measured of one example."""

Metrics = TypeVar("Metrics", bound="DataclassInstance")
"""The metrics of some results: a frozen record, which `metrics.to_dict` turns into what `report/metrics.json` holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideMetrics(Generic[Metrics]):
    """The metrics of one side of a partition, and under what conditions they were measured."""

    measured: Metrics = dataclasses.field(metadata=INLINE)
    protocol: str
    """How the data set was divided, in words."""
    specimen_leakage: bool
    """Whether the network was trained on specimens of this side."""
    leakage_note: str
    """The same in words."""


class Stream(Protocol):
    """Training batches as a function of the step."""

    @property
    def store(self) -> dict[str, np.ndarray]:
        """Arrays that the devices keep, with `data.warp=device`; else empty."""
        ...

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of the batch of a step."""
        ...

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        ...

    def frequencies(self) -> np.ndarray:
        """Share of each output channel in the truth of what batches hold, under `data.balance`; float64 [outputs]."""
        ...


class Evaluator(Protocol[Result]):
    """A network's compiled forward pass, and what it says about examples."""

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[Result]:
        """Results of the chosen examples, in order."""
        ...


class Task(abc.ABC, Generic[Result, Metrics]):
    """A data set, read for a kind of network.

    Attributes:
        config: of the experiment.
        name: of the data set.
        classes: patterns in the order of their labels.
        items: the examples as protocols see them.
        examples: what they are of, with pixels and truth: fields, cells or images.
        num_outputs: channels of the network's output.
        notes: what else a reader of the metrics must know of the data, a line each.
    """

    config: Config
    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    examples: Sequence[Any]
    num_outputs: int
    notes: tuple[str, ...] = ()

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Tells apart what is learnt from or measured: pixels, truth and names of these examples, and their order."""
        return fingerprint(self.classes, [self._fingerprints[i] for i in indices])

    @functools.cached_property
    def _fingerprints(self) -> list[str]:
        return [fingerprint(example) for example in self.examples]

    @abc.abstractmethod
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        """Training batches of these examples; `rows` of each global batch are made here."""

    @abc.abstractmethod
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[Result]:
        """A network's forward pass over this data set."""

    @abc.abstractmethod
    def metrics(self, results: Sequence[Result]) -> Metrics:
        """The metrics of one side, from the results of its examples."""

    @abc.abstractmethod
    def summary(self, measured: Metrics) -> dict[str, float]:
        """The metrics that one line of `metrics.jsonl` holds, those that are defined."""

    @abc.abstractmethod
    def score(self, measured: Metrics) -> float:
        """What ranks checkpoints by their validation side; more is better."""

    @abc.abstractmethod
    def describe(self, side: str, measured: Metrics) -> str:
        """The headline of a side in one line."""

    @abc.abstractmethod
    def details(self, measured: Metrics) -> list[str]:
        """Further lines about a side, for the terminal."""

    @abc.abstractmethod
    def to_record(self, result: Result) -> dict[str, Any]:
        """A result for JSON, complete except for pictures."""

    @abc.abstractmethod
    def from_record(self, record: dict[str, Any]) -> Result:
        """Inverse of `to_record`."""

    @abc.abstractmethod
    def gallery(self, indices: Sequence[int], results: Sequence[Result]) -> report.Gallery:
        """Pictures of a side for the report."""
