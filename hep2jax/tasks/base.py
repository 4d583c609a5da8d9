"""The interface of a kind of task: everything that training, evaluation, prediction and the report need from it."""

import abc
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import jax
import numpy as np
from typing_extensions import override

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import report
from hep2jax.config import Config
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets import prepare
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.sets.items import Item
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.calibration import CalibrationMetrics
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.metrics.serialise import INLINE, OMIT_EMPTY
from hep2jax.models import ImageNetwork
from hep2jax.specimens import nuclear_size
from hep2jax.specimens.nuclear_size import NuclearSize
from hep2jax.tasks.calibration import LEAST_PROBABILITY, Outcome
from hep2jax.tasks.reading import Parameters, Reader
from hep2jax.training import state as states
from hep2jax.training.state import Network, Tree

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BatchShapes = dict[str, jax.ShapeDtypeStruct]


def image_shapes(config: Config, num_images: int) -> BatchShapes:
    """The part of a batch that every kind of task has: `image` and `tone_curve`."""
    side, frame = config.data.crop_size, (2,) if config.data.cell_fit == "frame" else ()
    shapes = {
        "image": ((num_images, side, side, *frame), np.uint8),
        "tone_curve": ((num_images, *frame, 4), np.float32),
    }
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
"""What the report shows of tasks that classify images and, from them, specimens."""


class Identified(Protocol):
    """Something that belongs to one example."""

    @property
    def identifier(self) -> str:
        """The identifier of the example's item."""
        ...


Result = TypeVar("Result", bound=Identified)
"""What an evaluation measured of one example."""

Metrics = TypeVar("Metrics", bound="DataclassInstance")
"""The metrics of some results: a frozen record, which `metrics.to_dict` turns into entries of `report/metrics.json`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitMetrics(Generic[Metrics]):
    """The metrics of one split of a partition, and the conditions under which they were measured."""

    measured: Metrics = dataclasses.field(metadata=INLINE)
    protocol: str
    """How the data set was divided, in words."""
    specimen_leakage: bool
    """Whether the network was trained on specimens of this split."""
    leakage_note: str
    """The same in words."""
    calibration: CalibrationMetrics | None = dataclasses.field(default=None, metadata=OMIT_EMPTY)
    """How well the confidences hold; None if the network is not calibrated."""


class Evaluator(Generic[Result]):
    """A network's compiled forward pass over the examples of a data set."""

    def __init__(
        self, examples: Sequence[Any], measure: Callable[[Parameters, Sequence[Any]], Sequence[Result]]
    ) -> None:
        self._examples, self._measure = examples, measure

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[Result]:
        """The results of the examples with these indices, in order."""
        return list(self._measure(parameters, [self._examples[i] for i in indices]))


class Task(abc.ABC, Generic[Result, Metrics]):
    """A kind of task: inputs, loss, decoding and metrics of its networks. An instance also holds a data set.

    Class attributes:
        networks: class of the network, by `model.name`, for each network with this task.
        layout: what the report shows.
        reader_class: reads a user's images with a trained network of this kind.
        classifies_cells: whether networks are trained to classify cells, so that they can be trained on blends of two
            of them and on those of a second data set too (see `augment.mixup` and `data.along`).
        labels_pixels: whether networks give every pixel a pattern (see `evaluation.cell_reader` and `unsure_band`).
        is_fitted: whether the reader is fitted in one piece, by `fit`, instead of trained by steps; then there is no
            network, and `evaluator` and `reader_class` take None in its place.
        several: whether an example may have several patterns, or none.
        least_probability: smaller probabilities are raised to this one when they are calibrated.
        truth_description: what the data set knows about an example, for messages.
        compile_batches: numbers of images per chip that `--mode=compile` tries by default.

    Attributes:
        config: configuration of the experiment.
        name: name of the data set.
        classes: patterns in the order of their labels.
        items: the examples as protocols see them.
        examples: the examples with pixels and truth: fields, cells or images.
        notes: what else a reader of the metrics must know about the data, one line each.
    """

    networks: ClassVar[Mapping[str, Callable[..., ImageNetwork]]]
    reader_class: ClassVar[type[Reader]]
    layout: ClassVar[report.Layout]
    classifies_cells: ClassVar[bool] = False
    labels_pixels: ClassVar[bool] = False
    is_fitted: ClassVar[bool] = False
    several: ClassVar[bool] = False
    least_probability: ClassVar[float] = LEAST_PROBABILITY
    truth_description: ClassVar[str] = "one pattern per image"
    compile_batches: ClassVar[tuple[int, ...]] = (16, 32, 64)

    config: Config
    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    examples: Sequence[Any]
    notes: tuple[str, ...] = ()

    # What is known of the kind of task without a data set.

    @classmethod
    def reads(cls, config: Config) -> bool:
        """Whether this is the task of the configured network on the configured data set."""
        return config.model.name in cls.networks

    @classmethod
    @abc.abstractmethod
    def load(cls, config: Config) -> Self:
        """Read the configured data set, preparing it first if it is absent."""

    @classmethod
    def patterns(cls, config: Config) -> tuple[str, ...]:
        """The patterns of the configured data set, in the order of their labels; see `prepare.patterns`."""
        data = config.data
        return prepare.patterns(data.name, data.builder_config, data.data_dir, data.manual_dir)

    @classmethod
    def resolve(cls, config: Config) -> Config:
        """The configuration with the values that the network determines where a key leaves them open.

        This implementation is for networks that take images of any side that is a multiple of their stride.

        Raises:
            UsageError: values do not fit each other or the network.
        """
        configs.check_choice("data.normalise", config.data.normalise, configs.FIELD_NORMALISATIONS)
        if config.data.cell_fit == "frame":
            raise UsageError(f"data.cell_fit=frame: {config.model.name} does not read single cells")
        if config.data.scale > 1:
            raise UsageError(f"data.scale={config.data.scale}: fields are shrunk, never enlarged: at most 1")
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
    def make_network(cls, config: Config, classes: Sequence[str]) -> Any:
        """The network for these patterns; None if the reader is fitted in one piece and has none."""
        return None if cls.is_fitted else states.make_network(config, cls.count_outputs(classes))

    @classmethod
    def describe_outputs(cls, num_outputs: int) -> str:
        """The channels of the network's output in words."""
        return f"{num_outputs} patterns"

    @classmethod
    @abc.abstractmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        """Shapes and dtypes of a global batch of `size` from `stream`, with crops that are cut on the host."""

    @staticmethod
    @abc.abstractmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        """The scalar to minimise for the whole (global, sharded) batch.

        Args:
            config: configuration of the experiment.
            model: the network.
            image: its input, float32 [images, side, side, 1].
            output: its output for `image`.
            batch: a batch from `stream`.
            class_weights: float32 [outputs].
        """

    @staticmethod
    @abc.abstractmethod
    def decode(output: Any) -> Any:
        """The arrays that are averaged over mirrored and rotated views of an image: probabilities where possible."""

    # What needs a data set.

    def under(self, config: Config) -> Self:
        """The same data set under another division, such as another fold."""
        other = copy.copy(self)
        other.config = config
        return other

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return self.count_outputs(self.classes)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Digest of everything that is learnt from or measured: pixels, truth, names and order of these examples."""
        return fingerprint(self.classes, [self._fingerprints[i] for i in indices])

    def relies_on(self) -> dict[str, str]:
        """Digests of other readers that the evaluation uses, by the key that names them."""
        return {}

    @functools.cached_property
    def _fingerprints(self) -> list[str]:
        return [fingerprint(example) for example in self.examples]

    def nuclear_size(self, indices: Sequence[int]) -> NuclearSize | None:
        """How large the cells of these examples are in images of the data set.

        None if images are not brought to that size before they are read, as those of single cells.
        """
        del indices
        return None

    def fit(self, indices: Sequence[int], mesh: jax.sharding.Mesh) -> tuple[Parameters, Tree]:
        """Fit the reader to these examples, if `is_fitted`: its parameters, and what other fits may take from here."""
        raise NotImplementedError(f"{self.config.model.name} is trained by steps")

    def count_parameters(self, parameters: Tree) -> int:
        """The number of parameters of a reader that is fitted in one piece, counted as single numbers."""
        return states.num_parameters(parameters)

    @abc.abstractmethod
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        """Training batches of these examples; this process makes the `rows` of each global batch."""

    @abc.abstractmethod
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[Result]:
        """A network's forward pass over this data set."""

    @abc.abstractmethod
    def metrics(self, results: Sequence[Result]) -> Metrics:
        """The metrics of one split, from the results of its examples."""

    @abc.abstractmethod
    def summary(self, measured: Metrics) -> dict[str, float]:
        """The metrics for one line of `metrics.jsonl`, without undefined ones."""

    @abc.abstractmethod
    def score(self, measured: Metrics) -> float:
        """The score that ranks checkpoints on the validation split; higher is better."""

    @abc.abstractmethod
    def describe(self, split: str, measured: Metrics) -> str:
        """The headline of a split in one line."""

    @abc.abstractmethod
    def details(self, measured: Metrics) -> list[str]:
        """Further lines about a split, for the terminal."""

    @abc.abstractmethod
    def to_record(self, result: Result) -> dict[str, Any]:
        """A result for JSON, complete except for its images."""

    @abc.abstractmethod
    def from_record(self, record: dict[str, Any]) -> Result:
        """Inverse of `to_record`."""

    @abc.abstractmethod
    def outcome(self, result: Result) -> Outcome:
        """What a result says to the calibration: the probabilities are those of the reader."""

    @abc.abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """An example as its reader's `picture` is, uint8 [height, width]."""

    def has_negatives(self, indices: Sequence[int]) -> bool:
        """Whether images without any pattern are among these examples, which teach a network what is negative."""
        del indices
        return False

    @abc.abstractmethod
    def gallery(self, indices: Sequence[int], results: Sequence[Result]) -> report.Gallery:
        """Pictures of a split for the report."""


class TaskOfFields(Task[Result, Metrics]):
    """A kind of task whose data sets are fields of specimens.

    Class attributes:
        needs_masks: whether examples without a mask are refused.
    """

    needs_masks: ClassVar[bool] = True

    def __init__(self, config: Config, fields: FieldSet) -> None:
        self.config = config
        self.fields = fields
        self.name, self.classes, self.items = fields.name, fields.classes, fields.items
        self.examples = fields.fields

    @override
    @classmethod
    def load(cls, config: Config) -> Self:
        fields = field_sets.load(config.data)
        if cls.needs_masks:
            field_sets.check_annotated(fields, f"model.name={config.model.name}")
        return cls(config, fields)

    @override
    def nuclear_size(self, indices: Sequence[int]) -> NuclearSize | None:
        fields = [self.fields.fields[i] for i in evenly_spread(indices, nuclear_size.TRAINING_IMAGES)]
        annotated = [diameter for field in fields for diameter in _cell_diameters(field)]
        return nuclear_size.summarise(nuclear_size.measure_each(field.image for field in fields), annotated)

    @override
    def picture(self, index: int) -> np.ndarray:
        return self.fields.fields[index].working_image


def _cell_diameters(field: field_sets.Field) -> list[float]:
    diameters = nuclear_size.diameters(field.instances)
    return [diameter for label, diameter in diameters.items() if field.kinds.get(label, "cell") == "cell"]
