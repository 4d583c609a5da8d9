"""The interface of a kind of reading: everything that training, evaluation, prediction and the report ask of it."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import grain
import jax
import numpy as np

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import report
from hep2jax.config import Config
from hep2jax.data.sets import prepare
from hep2jax.data.sets.items import Item
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import ImageNetwork
from hep2jax.tasks.reading import Parameters, Reader
from hep2jax.training.state import Network

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BatchShapes = dict[str, jax.ShapeDtypeStruct]


def image_shapes(config: Config, images: int) -> BatchShapes:
    """The part of a batch that every kind has: `image` and `tone_curve` of as many images."""
    side = config.data.crop_size
    shapes = {"image": ((images, side, side), np.uint8), "tone_curve": ((images, 4), np.float32)}
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}


SPECIMENS_AND_IMAGES = report.Layout(
    unit="image",
    key_metrics=(
        report.KeyMetrics(prefix="Specimens, ", section="specimen", names=("mca", "aca")),
        report.KeyMetrics(prefix="Images, ", names=("mca", "aca")),
    ),
    classifications=(
        report.Classification(title="By specimen", unit="specimen", section="specimen"),
        report.Classification(title="By image", unit="image"),
    ),
    pictures=report.FieldPictures(),
)
"""What the report shows where images are read and, from them, specimens."""


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
class SplitMetrics(Generic[Metrics]):
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


class Evaluator(Generic[Result]):
    """A network's compiled forward pass over the examples of a data set."""

    def __init__(
        self, examples: Sequence[Any], measure: Callable[[Parameters, Sequence[Any]], Sequence[Result]]
    ) -> None:
        self._examples, self._measure = examples, measure

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[Result]:
        """Results of the chosen examples, in order."""
        return list(self._measure(parameters, [self._examples[i] for i in indices]))


class Task(abc.ABC, Generic[Result, Metrics]):
    """A kind of reading: what its networks are fed, learn, say and are measured by; an instance is a data set for it.

    Class attributes:
        networks: class of each `model.name` that reads this way.
        layout: what the report shows.
        reader_class: reads a user's images with a trained network of this kind.
        takes_blends: whether an example may be a blend of two (see `augment.mixup`).
        truth_in_words: what the data set knows of an example, for messages.
        compile_batches: images per chip that `--mode=compile` tries, unless told.

    Attributes:
        config: of the experiment.
        name: of the data set.
        classes: patterns in the order of their labels.
        items: the examples as protocols see them.
        examples: what they are of, with pixels and truth: fields, cells or images.
        notes: what else a reader of the metrics must know of the data, a line each.
    """

    networks: ClassVar[Mapping[str, Callable[..., ImageNetwork]]]
    reader_class: ClassVar[type[Reader]]
    layout: ClassVar[report.Layout]
    takes_blends: ClassVar[bool] = False
    truth_in_words: ClassVar[str] = "one pattern an image"
    compile_batches: ClassVar[tuple[int, ...]] = (16, 32, 64)

    config: Config
    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    examples: Sequence[Any]
    notes: tuple[str, ...] = ()

    # Of the kind: known without a data set.

    @classmethod
    def reads(cls, config: Config) -> bool:
        """Whether the configured network reads the configured data set this way."""
        return config.model.name in cls.networks

    @classmethod
    @abc.abstractmethod
    def load(cls, config: Config) -> Self:
        """Read the configured data set, preparing it first if it is absent."""

    @classmethod
    def patterns(cls, config: Config) -> tuple[str, ...]:
        """The patterns of the configured data set, in the order of their labels; the set need not be there."""
        return tuple(prepare.features(config.data.name, config.data.builder_config)["pattern"].names)

    @classmethod
    def resolve(cls, config: Config) -> Config:
        """The configuration with what the network supplies where a key leaves it open; UsageError for bad relations.

        Here: of networks that take images of any side which their stride divides.
        """
        configs.check_choice("data.normalise", config.data.normalise, configs.FIELD_NORMALISATIONS)
        sizes = (("data.crop_size", config.data.crop_size), ("evaluation.tile_size", config.evaluation.tile_size))
        for key, size in sizes:
            if size < 32 or size % 32:
                raise UsageError(f"{key}={size}: must be a positive multiple of 32, the networks' total stride")
        return config

    @classmethod
    def count_outputs(cls, classes: Sequence[str]) -> int:
        """Channels of the network's output for these patterns."""
        return len(classes)

    @classmethod
    def describe_outputs(cls, num_outputs: int) -> str:
        """The channels of the network's output in words."""
        return f"{num_outputs} patterns"

    @classmethod
    @abc.abstractmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        """What `stream` makes for a global batch of `size`, with crops that the host has cut."""

    @staticmethod
    @abc.abstractmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        """The scalar to minimise, of the whole (global, sharded) batch.

        Args:
            config: of the experiment.
            model: the network, whose `output` it is for `image`, float32 [images, side, side, 1].
            image: what it was given.
            output: what it gave.
            batch: as of `stream`.
            class_weights: float32 [outputs].
        """

    @staticmethod
    @abc.abstractmethod
    def decode(output: Any) -> Any:
        """What is averaged over mirrored and rotated views of an image: probabilities wherever that is possible."""

    # Of a data set of the kind.

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return self.count_outputs(self.classes)

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
