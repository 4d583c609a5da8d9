"""Reading whole images that may have several patterns, or none, from their tiles: each pattern is there or not."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import expit
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax import report
from hep2jax.config import Config
from hep2jax.data.sets import images
from hep2jax.data.sets.images import ImageSet
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.metrics import multilabel
from hep2jax.tasks.bags import BagEvaluator, BagReading, from_record, to_record
from hep2jax.tasks.base import Parameters, Task
from hep2jax.tasks.words import figure
from hep2jax.training.state import Network

_FIGURES = ("mAP", "f1_micro", "f1_macro", "exact_match", "hamming")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsResult(BagReading):
    """What one image adds to every figure."""

    identifier: str
    specimen: str
    """Empty where the set does not say."""
    group: str
    """One name for specimens that repeat each other (see `Item.group`)."""
    truth: tuple[int, ...]
    """1 for each pattern that the image has, 0 for the others."""


def probabilities(reading: BagReading) -> Float[np.ndarray, " pattern"]:
    """Of each pattern by itself, that the image has it."""
    return expit(reading.logits)


class _SetEvaluator:
    """The evaluator of one data set's images."""

    def __init__(self, images: ImageSet, forward: BagEvaluator) -> None:
        self._images = images
        self._forward = forward

    def measure(self, parameters: Parameters, indices: Sequence[int]) -> list[LabelsResult]:
        """Results of the chosen images, in order."""
        chosen = [self._images.images[i] for i in indices]
        readings = self._forward.read(parameters, ((image.image, image.greys) for image in chosen))
        return [
            LabelsResult(
                identifier=image.identifier,
                specimen=image.specimen,
                group=image.group,
                truth=tuple(image.patterns.astype(int).tolist()),
                **vars(reading),
            )
            for image, reading in zip(chosen, readings, strict=True)
        ]


class LabelsTask(Task[LabelsResult]):
    """A set of whole images, each with none, one or several patterns, read for a network of tiles.

    What cannot be learnt from or measured is left out, and said in `notes` (see `images.usable`).
    """

    def __init__(self, config: Config, found: ImageSet) -> None:
        self.config = config
        self.images, self.notes = images.usable(found)
        self.name, self.classes, self.items = found.name, found.classes, self.images.items
        self.examples = self.images.images
        self.num_outputs = len(found.classes)

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(BagPlan(self.config, bag_stream.of_images(self.images, indices)), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> _SetEvaluator:
        return _SetEvaluator(self.images, BagEvaluator(self.config, network, mesh))

    @override
    def figures(self, results: Sequence[LabelsResult], protocol: str, leakage: bool) -> dict[str, Any]:
        known = all(row.specimen for row in results)
        figures = multilabel.multilabel_report(
            np.array([row.truth for row in results]),
            np.array([probabilities(row) for row in results]),
            [row.group or row.specimen if known else row.identifier for row in results],
            self.classes,
            threshold=self.config.evaluation.pattern_threshold,
        )
        said = {"protocol": protocol, "specimen_leakage": leakage, "notes": list(self.notes)}
        return figures | said | ({} if known else {"num_specimens": None})

    @override
    def summary(self, figures: dict[str, Any]) -> dict[str, float]:
        return {name: figures[name] for name in _FIGURES if figures[name] is not None}

    @override
    def score(self, figures: dict[str, Any]) -> float:
        """The mAP; 0 where no image of the side has a pattern."""
        return figures["mAP"] or 0.0

    @override
    def describe(self, side: str, figures: dict[str, Any]) -> str:
        whose = f" of {figures['num_specimens']} specimens" if figures["num_specimens"] else ""
        named = (("mAP", "mAP"), ("macro F1", "f1_macro"), ("exact match", "exact_match"))
        return f"{side}: {figures['num_examples']} images{whose}: " + ", ".join(
            f"{name} {figure(figures, key)}" for name, key in named
        )

    @override
    def details(self, figures: dict[str, Any]) -> list[str]:
        """The average precision of each pattern that occurs."""
        rows = ((name, row["average_precision"]) for name, row in figures["per_class"].items())
        said = ", ".join(f"{name} {precision:.3f}" for name, precision in rows if precision is not None)
        return [f"average precision: {said}"]

    @override
    def to_record(self, result: LabelsResult) -> dict[str, Any]:
        return to_record(result) | {"truth": list(result.truth)}

    @override
    def from_record(self, record: dict[str, Any]) -> LabelsResult:
        values: dict[str, Any] = from_record(record)
        values["truth"] = tuple(record["truth"])
        return LabelsResult(**values)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[LabelsResult]) -> list[report.GalleryItem]:
        """None: the page's pictures compare masks. `report/records.json` says where the network looked."""
        return []
