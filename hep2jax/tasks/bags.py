"""Reading specimens from tiles of their fields: a pattern for each field alone, and for all fields of a specimen."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import metrics, report
from hep2jax.config import Config
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.tasks.base import Parameters, Task
from hep2jax.tasks.fields import plain_greys
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.tasks.words import figure
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
    """What one field adds to every figure."""

    number: int
    specimen: str
    truth: int
    intensity: str

    @property
    def identifier(self) -> str:
        """That of the field's item."""
        return f"{self.specimen}-{self.number}"


def pooled(results: Sequence[BagResult]) -> Float[np.ndarray, " pattern"]:
    """Probability of each pattern from all tiles of these fields as one bag, float64, whatever their order."""
    weights = softmax([row.mass for row in results])
    return softmax(weights @ np.stack([row.logits for row in results]))


class BagEvaluator:
    """A network's compiled forward pass over tiles, and what it says of whole pictures."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._reader = TileReader(config, network, mesh)

    def read(self, parameters: Parameters, pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[BagReading]:
        """What the network says of (uint8 [h, w], greys float32 [4]) pairs, each a bag, in order."""
        said: list[list[Any]] = []
        for tile, output in self._reader.read(parameters, pictures):
            said += [[] for _ in range(len(said), tile.image + 1)]
            said[tile.image].append((output.logits, output.attention, (tile.top, tile.left)))
        return [_pool_tiles(*zip(*rows, strict=True)) for rows in said]

    def measure_fields(self, parameters: Parameters, fields: Sequence[Field]) -> list[BagResult]:
        """Results of the fields, in order."""
        readings = self.read(parameters, ((field.working_image, plain_greys(field)) for field in fields))
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


class _SetEvaluator:
    """The evaluator of one data set's fields."""

    def __init__(self, fields: FieldSet, forward: BagEvaluator) -> None:
        self._fields = fields
        self._forward = forward

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[BagResult]:
        """Results of the chosen fields, in order."""
        return self._forward.measure_fields(parameters, [self._fields.fields[i] for i in indices])


class BagTask(Task[BagResult]):
    """A set of whole fields, read for a network of tiles; nothing but the specimens' patterns is learnt from."""

    def __init__(self, config: Config, fields: FieldSet) -> None:
        self.config = config
        self.fields = fields
        self.name, self.classes, self.items = fields.name, fields.classes, fields.items
        self.examples = fields.fields
        self.num_outputs = len(fields.classes)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(BagPlan(self.config, bag_stream.of_specimens(self.fields, indices)), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> _SetEvaluator:
        return _SetEvaluator(self.fields, BagEvaluator(self.config, network, mesh))

    @override
    def figures(self, results: Sequence[BagResult], protocol: str, leakage: bool) -> dict[str, Any]:
        """Of the fields one by one on top, then of the `specimen`s."""
        specimens = self._classification(list(_by_specimen(results).values()))
        fields = self._classification([[row] for row in results])
        return fields | {"protocol": protocol, "specimen_leakage": leakage, "specimen": specimens}

    def _classification(self, groups: Sequence[Sequence[BagResult]]) -> dict[str, Any]:
        """Every group of fields is one bag."""
        return metrics.classification_report(
            [group[0].truth for group in groups],
            [int(pooled(group).argmax()) for group in groups],
            [group[0].specimen for group in groups],
            self.classes,
        )

    @override
    def summary(self, figures: dict[str, Any]) -> dict[str, float]:
        whole = figures["specimen"]
        flat = {
            "aca": figures["aca"],
            "mca": figures["mca"],
            "specimen_aca": whole["aca"],
            "specimen_mca": whole["mca"],
        }
        return {name: value for name, value in flat.items() if value is not None}

    @override
    def score(self, figures: dict[str, Any]) -> float:
        """MCA of the specimens; that of the fields decides between equals."""
        return figures["specimen"]["mca"] + 1e-3 * figures["mca"]

    @override
    def describe(self, side: str, figures: dict[str, Any]) -> str:
        whole = figures["specimen"]
        return (
            f"{side}: {whole['num_specimens']} specimens: MCA {figure(whole, 'mca')}, ACA {figure(whole, 'aca')}; "
            f"{figures['num_examples']} fields one by one: MCA {figure(figures, 'mca')}"
        )

    @override
    def details(self, figures: dict[str, Any]) -> list[str]:
        """The recall of each pattern, of specimens."""
        recalls = ((name, row["recall"], row["support"]) for name, row in figures["specimen"]["per_class"].items())
        return ["recall: " + ", ".join(f"{name} {recall:.3f}" for name, recall, support in recalls if support)]

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


def _by_specimen(results: Sequence[BagResult]) -> dict[str, list[BagResult]]:
    groups: dict[str, list[BagResult]] = {}
    for result in results:
        groups.setdefault(result.specimen, []).append(result)
    return groups
