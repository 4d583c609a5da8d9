"""Reading specimens from tiles of their fields: one pattern for each field, and one for all fields of a specimen."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config
from hep2jax.data.sets import images
from hep2jax.data.sets.fields import Field
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics, describe_recalls
from hep2jax.metrics.estimates import defined_values
from hep2jax.metrics.grouping import group_by
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import TileOutput, mil
from hep2jax.tasks.base import SPECIMENS_AND_IMAGES, BatchShapes, Evaluator, TaskOfFields, image_shapes
from hep2jax.tasks.calibration import Outcome
from hep2jax.tasks.fields import working_pair
from hep2jax.tasks.reading import Parameters, PatternReader, Reading, Ready, as_fields
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training import losses
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagReading:
    """The network's output for one image. Pooled readings equal the output for one bag of all tiles of their images."""

    logits: Float[np.ndarray, " pattern"]
    """Logits of the image's tiles as one bag, float64."""
    mass: float
    """Logarithm of the sum of exp(score) over the tiles. Its softmax over images is the weight of each image."""
    attention: Float[np.ndarray, " tile"]
    """Weight of each tile in the image's bag, with sum 1: where the network looked."""
    corners: Int[np.ndarray, "tile 2"]
    """(y, x) of each tile's first pixel at working resolution."""


_READING_ARRAYS = {"logits": np.float64, "attention": np.float64, "corners": np.int64}


def to_record(reading: BagReading) -> dict[str, Any]:
    """A reading for JSON, including the fields that a result adds to it."""
    return dataclasses.asdict(reading) | {name: getattr(reading, name).tolist() for name in _READING_ARRAYS}


def from_record(record: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `to_record`, as keyword arguments."""
    return record | {name: np.array(record[name], dtype) for name, dtype in _READING_ARRAYS.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagResult(BagReading):
    """What one field contributes to the metrics."""

    number: int
    specimen: str
    truth: int
    intensity: str

    @property
    def identifier(self) -> str:
        """The identifier of the field's item."""
        return f"{self.specimen}-{self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagMetrics:
    """The metrics of some fields and of their specimens."""

    fields: ClassificationMetrics = dataclasses.field(metadata=INLINE)
    """With each field classified by itself."""
    specimen: ClassificationMetrics
    """With each specimen classified from all its fields."""


def pooled(results: Sequence[BagReading]) -> Float[np.ndarray, " pattern"]:
    """Probability of each pattern, float64, from all tiles of these fields as one bag. The order does not matter."""
    weights = softmax([result.mass for result in results])
    return softmax(weights @ np.stack([result.logits for result in results]))


def _undecoded(output: TileOutput) -> TileOutput:
    """The output as it is: tiles are pooled before their logits become probabilities."""
    return output


class BagEvaluator:
    """A network's compiled forward pass over tiles, and its output for whole images."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._reader = TileReader(config, network, mesh, _undecoded)

    def read(self, parameters: Parameters, bags: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[BagReading]:
        """The readings of images, each as one bag, in order.

        Args:
            parameters: (params, batch_stats).
            bags: (uint8 [h, w], tone_curve float32 [4]) pairs, see `steps.normalise`.
        """
        outputs: list[Any] = []  # of the tiles of an image
        for tile, output in self._reader.read(parameters, bags):
            outputs.append((output.logits, output.attention, (tile.top, tile.left)))
            if tile.last:
                yield _pool_tiles(*zip(*outputs, strict=True))
                outputs = []

    def measure(self, parameters: Parameters, fields: Sequence[Field]) -> list[BagResult]:
        """The results of the fields, in order."""
        readings = self.read(parameters, map(working_pair, fields))
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


class BagReader(PatternReader):
    """Reads with networks that take tiles: all tiles of all fields of a specimen form one bag."""

    evaluator_class = BagEvaluator

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        return self._evaluator.read(self._parameters, map(working_pair, as_fields(images, self.config)))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        return self._most_probable(pooled(outputs))


class BagTask(TaskOfFields[BagResult, BagMetrics]):
    """Classification of specimens by bags of tiles from their fields; it learns from the specimens' patterns alone."""

    networks = models.BAG_READERS
    needs_masks = False
    reader_class = BagReader
    layout = SPECIMENS_AND_IMAGES

    @override
    @classmethod
    def reads(cls, config: Config) -> bool:
        return super().reads(config) and not images.is_multilabel(config.data)

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

    decode = staticmethod(_undecoded)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(BagPlan(self.config, bag_stream.from_specimens(self.fields, indices)), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[BagResult]:
        return Evaluator(self.examples, BagEvaluator(self.config, network, mesh).measure)

    @override
    def metrics(self, results: Sequence[BagResult]) -> BagMetrics:
        specimens = group_by(results, lambda result: result.specimen)
        return BagMetrics(
            fields=self._classification([[result] for result in results]),
            specimen=self._classification(list(specimens.values())),
        )

    def _classification(self, groups: Sequence[Sequence[BagResult]]) -> ClassificationMetrics:
        """Metrics with every group of fields as one bag."""
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
        """MCA of the specimens; between equal ones, MCA of the fields decides."""
        return float(measured.specimen.mca) + 1e-3 * float(measured.fields.mca)

    @override
    def describe(self, split: str, measured: BagMetrics) -> str:
        fields, specimen = measured.fields, measured.specimen
        return (
            f"{split}: {specimen.num_specimens} specimens: MCA {specimen.mca}, ACA {specimen.aca}; "
            f"{fields.num_examples} fields one by one: MCA {fields.mca}"
        )

    @override
    def details(self, measured: BagMetrics) -> list[str]:
        """The recall of each pattern over specimens."""
        return [describe_recalls(measured.specimen)]

    @override
    def to_record(self, result: BagResult) -> dict[str, Any]:
        return to_record(result)

    @override
    def from_record(self, record: dict[str, Any]) -> BagResult:
        return BagResult(**from_record(record))

    @override
    def outcome(self, result: BagResult) -> Outcome:
        return Outcome(pooled([result]), result.truth, result.specimen)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[BagResult]) -> list[report.GalleryItem]:
        """Empty, as the page's pictures compare masks; `report/records.json` holds where the network looked."""
        return []
