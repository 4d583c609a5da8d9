"""Reading specimens from tiles of their fields: a pattern for each field alone, and for all fields of a specimen."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets import images
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics, describe_recalls
from hep2jax.metrics.estimates import defined_values
from hep2jax.metrics.grouping import group_by
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import TileOutput, mil
from hep2jax.tasks.base import SPECIMENS_AND_IMAGES, BatchShapes, Evaluator, Task, image_shapes
from hep2jax.tasks.fields import plain_tone_curve
from hep2jax.tasks.reading import Parameters, Reader, Reading, as_fields
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training import losses
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagReading:
    """What the network says of one picture; any pictures pool to exactly what one bag of all their tiles gives."""

    logits: Float[np.ndarray, " pattern"]
    """Of the picture's tiles as one bag, float64."""
    mass: float
    """Logarithm of the sum of exp(score) over the tiles: a picture's weight among pictures is the softmax of it."""
    attention: Float[np.ndarray, " tile"]
    """Weight of each tile in the picture's bag, of sum 1: where the network looked."""
    corners: Int[np.ndarray, "tile 2"]
    """(y, x) of each tile's first pixel at working resolution."""


_READING_ARRAYS = {"logits": np.float64, "attention": np.float64, "corners": np.int64}


def to_record(reading: BagReading) -> dict[str, Any]:
    """A reading, and what a result adds to it, for JSON."""
    return dataclasses.asdict(reading) | {name: getattr(reading, name).tolist() for name in _READING_ARRAYS}


def from_record(record: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `to_record`, as arguments by name."""
    return record | {name: np.array(record[name], dtype) for name, dtype in _READING_ARRAYS.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagResult(BagReading):
    """What one field adds to every metric."""

    number: int
    specimen: str
    truth: int
    intensity: str

    @property
    def identifier(self) -> str:
        """That of the field's item."""
        return f"{self.specimen}-{self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagMetrics:
    """The metrics of some fields, and of their specimens."""

    fields: ClassificationMetrics = dataclasses.field(metadata=INLINE)
    """Each field read by itself."""
    specimen: ClassificationMetrics
    """Each specimen read from all its fields."""


def pooled(results: Sequence[BagResult]) -> Float[np.ndarray, " pattern"]:
    """Probability of each pattern from all tiles of these fields as one bag, float64, whatever their order."""
    weights = softmax([row.mass for row in results])
    return softmax(weights @ np.stack([row.logits for row in results]))


def _as_it_is(output: TileOutput) -> TileOutput:
    """Tiles are pooled before anything becomes a probability."""
    return output


class BagEvaluator:
    """A network's compiled forward pass over tiles, and what it says of whole pictures."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._reader = TileReader(config, network, mesh, _as_it_is)

    def read(self, parameters: Parameters, pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[BagReading]:
        """What the network says of (uint8 [h, w], tone_curve float32 [4]) pairs, each a bag, in order."""
        said: list[list[Any]] = []
        for tile, output in self._reader.read(parameters, pictures):
            said += [[] for _ in range(len(said), tile.image + 1)]
            said[tile.image].append((output.logits, output.attention, (tile.top, tile.left)))
        return [_pool_tiles(*zip(*rows, strict=True)) for rows in said]

    def measure(self, parameters: Parameters, fields: Sequence[Field]) -> list[BagResult]:
        """Results of the fields, in order."""
        readings = self.read(parameters, ((field.working_image, plain_tone_curve(field)) for field in fields))
        return [_result(field, reading) for field, reading in zip(fields, readings, strict=True)]


def _result(field: Field, reading: BagReading) -> BagResult:
    return BagResult(
        number=field.number,
        specimen=field.specimen_id,
        truth=field.pattern,
        intensity=field.intensity,
        **vars(reading),
    )


def _pool_tiles(logits: Sequence, scores: Sequence, corners: Sequence) -> BagReading:
    score = np.array(scores, np.float64)
    attention = softmax(score)
    return BagReading(
        logits=attention @ np.array(logits, np.float64),
        mass=float(np.asarray(logsumexp(score))),
        attention=attention,
        corners=np.array(corners, np.int64),
    )


class BagReader(Reader):
    """Of networks that read tiles: all tiles of all fields are one bag."""

    evaluator_class = BagEvaluator

    @override
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        return self._evaluator.measure(self._parameters, as_fields(images, names, self.config))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        return self._most_probable(pooled(outputs))

    def _most_probable(self, values: np.ndarray) -> Reading:
        return Reading(patterns=(self.classes[int(values.argmax())],), probabilities=self._by_pattern(values))

    @override
    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """With the probability of the pattern, then that of every pattern."""
        shares = reading.rounded
        return super().row(name, reading) | {"probability": shares[reading.pattern], **shares}


class BagTask(Task[BagResult, BagMetrics]):
    """Fields as bags of tiles: one pattern a specimen, of which nothing but the pattern is learnt from."""

    networks = models.BAG_READERS
    reader_class = BagReader
    layout = SPECIMENS_AND_IMAGES

    def __init__(self, config: Config, fields: FieldSet) -> None:
        self.config = config
        self.fields = fields
        self.name, self.classes, self.items = fields.name, fields.classes, fields.items
        self.examples = fields.fields

    @override
    @classmethod
    def reads(cls, config: Config) -> bool:
        return super().reads(config) and not images.is_multilabel(config.data)

    @override
    @classmethod
    def load(cls, config: Config) -> Self:
        return cls(config, field_sets.load(config.data))

    @override
    @classmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        tiles = image_shapes(config, size * config.data.bag_tiles)
        return tiles | {"labels": jax.ShapeDtypeStruct((size,), np.int32)}

    @override
    @staticmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        labels = batch["labels"]
        return losses.cell_loss(mil.pool(output, len(labels)), labels, image, class_weights, config.loss)

    decode = staticmethod(_as_it_is)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(BagPlan(self.config, bag_stream.from_specimens(self.fields, indices)), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[BagResult]:
        return Evaluator(self.examples, BagEvaluator(self.config, network, mesh).measure)

    @override
    def metrics(self, results: Sequence[BagResult]) -> BagMetrics:
        specimens = group_by(results, lambda row: row.specimen)
        return BagMetrics(
            fields=self._classification([[row] for row in results]),
            specimen=self._classification(list(specimens.values())),
        )

    def _classification(self, groups: Sequence[Sequence[BagResult]]) -> ClassificationMetrics:
        """Every group of fields is one bag."""
        return classification_metrics(
            [group[0].truth for group in groups],
            [int(pooled(group).argmax()) for group in groups],
            [group[0].specimen for group in groups],
            self.classes,
        )

    @override
    def summary(self, measured: BagMetrics) -> dict[str, float]:
        fields, specimen = measured.fields, measured.specimen
        return defined_values(
            {"aca": fields.aca, "mca": fields.mca, "specimen_aca": specimen.aca, "specimen_mca": specimen.mca}
        )

    @override
    def score(self, measured: BagMetrics) -> float:
        """MCA of the specimens; that of the fields decides between equals."""
        return float(measured.specimen.mca) + 1e-3 * float(measured.fields.mca)

    @override
    def describe(self, side: str, measured: BagMetrics) -> str:
        fields, specimen = measured.fields, measured.specimen
        return (
            f"{side}: {specimen.num_specimens} specimens: MCA {specimen.mca}, ACA {specimen.aca}; "
            f"{fields.num_examples} fields one by one: MCA {fields.mca}"
        )

    @override
    def details(self, measured: BagMetrics) -> list[str]:
        """The recall of each pattern, of specimens."""
        return [describe_recalls(measured.specimen)]

    @override
    def to_record(self, result: BagResult) -> dict[str, Any]:
        return to_record(result)

    @override
    def from_record(self, record: dict[str, Any]) -> BagResult:
        return BagResult(**from_record(record))

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[BagResult]) -> list[report.GalleryItem]:
        """None: the page's pictures compare masks. `report/records.json` says where the network looked."""
        return []
