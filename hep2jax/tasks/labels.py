"""Reading whole images that may have several patterns, or none, from their tiles: multi-label classification."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import expit
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config
from hep2jax.data.sets import images, prepare
from hep2jax.data.sets.images import ImageSet, LabelledImage
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics.estimates import defined_values, estimates_of
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.metrics.multilabel import MultilabelMetrics, multilabel_metrics
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import mil
from hep2jax.specimens import nuclear_size
from hep2jax.specimens.nuclear_size import NuclearSize
from hep2jax.tasks.bags import BagEvaluator, BagReader, BagReading, BagTask, from_record, to_record
from hep2jax.tasks.base import SPECIMENS_AND_IMAGES, BatchShapes, Evaluator, Task, image_shapes
from hep2jax.tasks.calibration import Outcome
from hep2jax.tasks.reading import Parameters, Reading
from hep2jax.training import losses
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsResult(BagReading):
    """What one image contributes to the metrics."""

    identifier: str
    specimen: str
    """Empty if the set does not give it."""
    group: str
    """Common name of specimens that repeat each other (see `Item.group`)."""
    truth: tuple[int, ...]
    """1 for each pattern that the image has, 0 for the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsMetrics:
    """The metrics of some images."""

    images: MultilabelMetrics = dataclasses.field(metadata=INLINE)
    notes: tuple[str, ...]
    """What was left out of the data set."""


def probabilities(reading: BagReading) -> Float[np.ndarray, " pattern"]:
    """The probability of each pattern to be present, independent of the others."""
    return expit(reading.logits)


class LabelsEvaluator(BagEvaluator):
    """A network's compiled forward pass over tiles, and its output for images with several patterns."""

    def measure_images(self, parameters: Parameters, images: Sequence[LabelledImage]) -> list[LabelsResult]:
        """The results of the images, in order."""
        readings = self.read(parameters, ((image.image, image.tone_curve) for image in images))
        return [
            LabelsResult(
                identifier=image.identifier,
                specimen=image.specimen,
                group=image.group,
                truth=tuple(image.patterns.astype(int).tolist()),
                **vars(reading),
            )
            for image, reading in zip(images, readings, strict=True)
        ]


class LabelsReader(BagReader):
    """Reads with networks that take the tiles of one image, which may have several patterns or none."""

    reads_specimens = False
    has_one_pattern = False

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        (output,) = outputs
        return several_patterns(probabilities(output), self.classes, self.config.evaluation.pattern_threshold)

    @override
    def row(self, reading: Reading) -> dict[str, Any]:
        """The patterns of the image, their codes, what is thought of it, and the probability of every pattern."""
        return {"patterns": reading.pattern, "icap": reading.icap_in_words} | reading.judgement | reading.rounded


def several_patterns(values: np.ndarray, classes: Sequence[str], threshold: float) -> Reading:
    """The patterns whose probability is at least the threshold, the most probable first.

    `values` are the probabilities of `classes`.
    """
    order = np.argsort(-values, kind="stable")
    return Reading(
        patterns=tuple(classes[int(k)] for k in order if values[k] >= threshold),
        probabilities={name: float(value) for name, value in zip(classes, values, strict=True)},
    )


class LabelsTask(Task[LabelsResult, LabelsMetrics]):
    """Multi-label classification of images as bags of tiles: an image has none, one or several patterns.

    Images that can neither be learnt from nor measured are left out, and `notes` names them (see `images.usable`).
    """

    networks = models.BAG_READERS
    reader_class = LabelsReader
    layout = dataclasses.replace(
        SPECIMENS_AND_IMAGES,
        key_metrics=(report.KeyMetrics(prefix="Images, ", names=("mAP", "f1_macro", "f1_micro", "exact_match")),),
    )
    several = True
    truth_description = "several patterns per image"

    def __init__(self, config: Config, image_set: ImageSet) -> None:
        self.config = config
        self.images, self.notes = images.usable(image_set)
        self.name, self.classes, self.items = image_set.name, image_set.classes, self.images.items
        self.examples = self.images.images

    @override
    @classmethod
    def reads(cls, config: Config) -> bool:
        return super().reads(config) and images.is_multilabel(config.data)

    @override
    @classmethod
    def load(cls, config: Config) -> Self:
        return cls(config, images.load(config.data))

    @override
    @classmethod
    def patterns(cls, config: Config) -> tuple[str, ...]:
        return tuple(prepare.features(config.data.name, config.data.builder_config)["patterns"].feature.names)

    @override
    @classmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        tiles = image_shapes(config, size * config.data.bag_tiles)
        return tiles | {"labels": jax.ShapeDtypeStruct((size, len(cls.patterns(config))), np.float32)}

    @override
    @staticmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        labels = batch["labels"]
        return losses.label_loss(mil.pool(output, len(labels)), labels, class_weights, config.loss)

    decode = staticmethod(BagTask.decode)

    @override
    def nuclear_size(self, indices: Sequence[int]) -> NuclearSize | None:
        chosen = evenly_spread(indices, nuclear_size.TRAINING_IMAGES)
        sizes = nuclear_size.measure_each(self.images.images[i].image for i in chosen)
        return nuclear_size.summarise([size / self.config.data.scale for size in sizes], [])

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(BagPlan(self.config, bag_stream.from_images(self.images, indices)), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[LabelsResult]:
        return Evaluator(self.examples, LabelsEvaluator(self.config, network, mesh).measure_images)

    @override
    def metrics(self, results: Sequence[LabelsResult]) -> LabelsMetrics:
        known = all(row.specimen for row in results)
        images = multilabel_metrics(
            np.array([row.truth for row in results]),
            np.array([probabilities(row) for row in results]),
            [row.group or row.specimen if known else row.identifier for row in results],
            self.classes,
            threshold=self.config.evaluation.pattern_threshold,
        )
        images = images if known else dataclasses.replace(images, num_specimens=None)
        return LabelsMetrics(images=images, notes=self.notes)

    @override
    def summary(self, measured: LabelsMetrics) -> dict[str, float]:
        return defined_values(estimates_of(measured.images))

    @override
    def score(self, measured: LabelsMetrics) -> float:
        """The mAP, or 0 if no image of the split has a pattern."""
        return measured.images.mAP.value or 0.0

    @override
    def describe(self, split: str, measured: LabelsMetrics) -> str:
        images = measured.images
        specimens = f" of {images.num_specimens} specimens" if images.num_specimens else ""
        return (
            f"{split}: {images.num_examples} images{specimens}: mAP {images.mAP}, macro F1 {images.f1_macro}, "
            f"exact match {images.exact_match}"
        )

    @override
    def details(self, measured: LabelsMetrics) -> list[str]:
        """The average precision of each pattern that occurs in the truth."""
        precisions = ((name, row.average_precision) for name, row in measured.images.per_class.items())
        defined = (f"{name} {precision:.3f}" for name, precision in precisions if precision is not None)
        return [f"average precision: {', '.join(defined)}"]

    @override
    def to_record(self, result: LabelsResult) -> dict[str, Any]:
        return to_record(result) | {"truth": list(result.truth)}

    @override
    def from_record(self, record: dict[str, Any]) -> LabelsResult:
        values: dict[str, Any] = from_record(record)
        values["truth"] = tuple(record["truth"])
        return LabelsResult(**values)

    @override
    def outcome(self, result: LabelsResult) -> Outcome:
        return Outcome(probabilities(result), np.array(result.truth), result.group or result.specimen)

    @override
    def picture(self, index: int) -> np.ndarray:
        return self.images.images[index].image

    @override
    def has_negatives(self, indices: Sequence[int]) -> bool:
        return any(not self.images.images[i].patterns.any() for i in indices)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[LabelsResult]) -> list[report.GalleryItem]:
        """Empty, as the page's pictures compare masks; `report/records.json` holds where the network looked."""
        return []
