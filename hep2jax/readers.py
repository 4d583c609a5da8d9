"""Trained networks that read a user's images, a class for each kind: NumPy arrays in, a typed reading out."""

import abc
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, UInt8
from typing_extensions import override

from hep2jax import evaluation, metrics, specimen, tasks, workdir
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import BAG_READERS, CLASSIFIERS, JOINT_READERS, SEGMENTERS, Config
from hep2jax.data import cells, sources
from hep2jax.data.joint_stream import GRADES
from hep2jax.tasks.bag_task import BagEvaluator, pooled
from hep2jax.tasks.cell_task import CellEvaluator
from hep2jax.tasks.field_task import FieldEvaluator
from hep2jax.tasks.joint_task import JointEvaluator, majority
from hep2jax.tasks.labels_task import probabilities
from tfds_builders import icap

_DECIMALS = 6  # of shares and probabilities, as in `report/records.json`


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a network says of one image, or of one specimen from all its fields."""

    patterns: tuple[str, ...]
    """The patterns that were read, the most probable first: one, but none where no cell was found; any number from a
    network for images of several patterns."""
    probabilities: Mapping[str, float]
    """Of every pattern, in [0, 1]. Of sum 1 where an image has one pattern; a network that segments gives the shares
    of its votes (foreground pixels or patches), all 0 where no cell was found. Each by itself where an image may have
    several."""
    intensity: str = ""
    """`intermediate` or `positive`, `none` where no cell was found; empty where the network grades no intensity."""
    class_masks: tuple[UInt8[np.ndarray, "height width"], ...] = ()
    """One for each field, of the field's size: 0 background, 1+i the pattern `classes[i]` of the reader. Empty where
    the network does not segment."""

    @property
    def pattern(self) -> str:
        """The patterns in words, joined by ` + `; `none` without any."""
        return " + ".join(self.patterns) or "none"

    @property
    def icap(self) -> tuple[str, ...]:
        """The consensus codes of the patterns, such as `AC-4`; a pattern may stand for several, or for none."""
        return tuple(code for pattern in self.patterns for code in icap.codes(pattern))

    @property
    def cell_masks(self) -> tuple[Bool[np.ndarray, "height width"], ...]:
        """One for each field: the pixels that are cell. Empty where the network does not segment."""
        return tuple(mask > 0 for mask in self.class_masks)


class Reader(abc.ABC):
    """A trained network of a work directory, compiled once for all images.

    Attributes:
        config: of the run.
        classes: the patterns in the order of the network's outputs.
        reads_specimens: whether several fields of one specimen may be read together.
        takes_masks: whether the mask of the cell may come with an image.
    """

    reads_specimens: ClassVar[bool] = True
    takes_masks: ClassVar[bool] = False
    evaluator_class: ClassVar[type]

    def __init__(self, directory: pathlib.Path) -> None:
        self.config = workdir.open_for_reading(directory)
        self._parameters, self.classes = evaluation.load_parameters(directory)
        network = states.make_network(self.config, tasks.num_outputs(self.config, self.classes))
        self._evaluator: Any = self.evaluator_class(self.config, network, meshes.make_mesh())

    def __call__(self, image: np.ndarray | Sequence[np.ndarray], mask: np.ndarray | None = None) -> Reading:
        """Read one image, or one specimen from all its fields.

        Args:
            image: uint8 [height, width] grey or [height, width, 3] colour (RGB); several of them are the fields of one
                specimen. A network for cells takes the crop of one cell.
            mask: bool [height, width], true on the cell, where the reader takes masks.

        Raises:
            ValueError: an array of another type or shape; no field, or several where this reader reads one image.
            UsageError: the network was trained with masks and there is none.
        """
        fields = [image] if isinstance(image, np.ndarray) else list(image)
        if not fields or len(fields) > 1 and not self.reads_specimens:
            raise ValueError(f"{len(fields)} images: {self.config.model.name} as it was trained reads one at a time")
        return self._decide(list(self._run(fields, None if mask is None else [mask])))

    def read(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
    ) -> Iterator[Reading]:
        """Read each image by itself, in full batches, in order; arguments as those of a call, `names` for messages."""
        return (self._decide([output]) for output in self._run(images, masks, names))

    def _run(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
    ) -> Iterable[Any]:
        if masks is not None and not self.takes_masks:
            raise ValueError(f"a mask: {self.config.model.name} reads whole images, without any")
        names = names or [f"image {number}" for number in range(len(images))]
        grey = [self._select_channel(image, name) for image, name in zip(images, names, strict=True)]
        masks = masks or [np.zeros(image.shape, bool) for image in grey]
        for image, mask, name in zip(grey, masks, names, strict=True):
            if mask.shape != image.shape:
                raise ValueError(f"{name}: is of shape {image.shape}, but its mask is of shape {mask.shape}")
        return self._outputs(grey, masks, names)

    def _select_channel(self, image: np.ndarray, name: str) -> UInt8[np.ndarray, "height width"]:
        if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or image.ndim == 3 == image.shape[2]):
            raise ValueError(
                f"{name}: must be uint8 [height, width] or [height, width, 3], not {image.dtype} {list(image.shape)}"
            )
        return sources.select_channel(image, self.config.data.channel)

    @abc.abstractmethod
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        """What the evaluator says of each image, in order."""

    @abc.abstractmethod
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        """The reading of all fields of one specimen, by the decisions that evaluation makes."""

    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """The line of `predictions.csv` about the image `name`: its columns and their values."""
        return {"image": name, "pattern": reading.pattern, "icap": codes_in_words(reading)}

    def _by_pattern(self, values: Iterable[float]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.classes, values, strict=True)}


class PixelReader(Reader):
    """Of networks that label every pixel: the foreground pixels of all fields vote."""

    evaluator_class = FieldEvaluator

    @override
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        return self._evaluator.read_pixels(self._parameters, _fields(images, names, self.config))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        votes = np.stack([field.votes for field in outputs])
        return self._voted(votes, [np.where(field.foreground, field.pattern + 1, 0) for field in outputs])

    def _voted(self, votes: np.ndarray, masks: Sequence[np.ndarray], intensity: str = "") -> Reading:
        winner = specimen.vote(votes)
        return Reading(
            patterns=() if winner is None else (self.classes[winner],),
            probabilities=self._by_pattern(specimen.vote_shares(votes)),
            intensity=intensity,
            class_masks=tuple(mask.astype(np.uint8) for mask in masks),
        )

    @override
    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """With the share of the votes, the number of connected objects, and the share of pixels that are cell."""
        masks, least = reading.cell_masks, self.config.evaluation.min_object_pixels
        return super().row(name, reading) | {
            "share": round(max(reading.probabilities.values()), _DECIMALS),
            "num_objects": sum(int(metrics.connected_objects(mask, least).max()) for mask in masks),
            "foreground": round(float(np.concatenate([mask.ravel() for mask in masks]).mean()), _DECIMALS),
        }


class PatchReader(PixelReader):
    """Of networks that segment patches, name their pattern and grade their intensity: the patches vote."""

    evaluator_class = JointEvaluator

    @override
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        return self._evaluator.read(self._parameters, _fields(images, names, self.config))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        masks = [np.where(field.foreground, (majority([field])[0] or 0) + 1, 0) for field in outputs]
        _, grade = majority(outputs)
        intensity = "none" if grade is None else GRADES[grade]
        return self._voted(np.stack([field.patterns for field in outputs]), masks, intensity)

    @override
    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """With the intensity."""
        return super().row(name, reading) | {"intensity": reading.intensity}


class BagReader(Reader):
    """Of networks that read tiles: all tiles of all fields are one bag."""

    evaluator_class = BagEvaluator

    @override
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        return self._evaluator.measure_fields(self._parameters, _fields(images, names, self.config))

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        return self._most_probable(pooled(outputs))

    def _most_probable(self, values: np.ndarray) -> Reading:
        return Reading(patterns=(self.classes[int(values.argmax())],), probabilities=self._by_pattern(values))

    @override
    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """With the probability of the pattern, then that of every pattern."""
        shares = _rounded(reading)
        return super().row(name, reading) | {"probability": shares[reading.pattern], **shares}


class LabelsReader(BagReader):
    """Of networks that read the tiles of one image which may have several patterns, or none."""

    reads_specimens = False

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        (output,) = outputs
        return several_patterns(probabilities(output), self.classes, self.config.evaluation.pattern_threshold)

    @override
    def row(self, name: str, reading: Reading) -> dict[str, Any]:
        """The patterns of the image and the probability of every pattern."""
        return {"image": name, "patterns": reading.pattern, "icap": codes_in_words(reading), **_rounded(reading)}


class CellReader(BagReader):
    """Of networks that name the pattern of one cell, cut out."""

    reads_specimens = False
    takes_masks = True
    evaluator_class = CellEvaluator

    @override
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        crops = zip(images, masks, names, strict=True)
        ready = [cells.make_ready(image, mask, self.config.data, name=name) for image, mask, name in crops]
        return self._evaluator.predict(self._parameters, [image for image, _ in ready], [greys for _, greys in ready])

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        (values,) = outputs
        return self._most_probable(values)


READERS: dict[str, type[Reader]] = {
    **dict.fromkeys(SEGMENTERS, PixelReader),
    **dict.fromkeys(JOINT_READERS, PatchReader),
    **dict.fromkeys(BAG_READERS, BagReader),
    **dict.fromkeys(CLASSIFIERS, CellReader),
}
"""The reader of each `model.name`; `LabelsReader` where the images of its data set have several patterns."""


def open_reader(directory: pathlib.Path) -> Reader:
    """The trained network of a work directory (its best checkpoint), ready to read.

    Raises:
        UsageError: the directory holds no run of ours, or no finished checkpoint.
    """
    config = workdir.open_for_reading(directory)
    kind = LabelsReader if tasks.reads_labels(config) else READERS[config.model.name]
    return kind(directory)


def several_patterns(values: np.ndarray, classes: Sequence[str], threshold: float) -> Reading:
    """The patterns of at least the threshold, the most probable first; `values` are the probabilities of `classes`."""
    order = np.argsort(-values, kind="stable")
    return Reading(
        patterns=tuple(classes[int(k)] for k in order if values[k] >= threshold),
        probabilities={name: float(value) for name, value in zip(classes, values, strict=True)},
    )


def _rounded(reading: Reading) -> dict[str, float]:
    return {name: round(value, _DECIMALS) for name, value in reading.probabilities.items()}


def codes_in_words(reading: Reading) -> str:
    """The consensus codes by pattern, such as `AC-8 to AC-10 + AC-1`; empty where there are none."""
    return " + ".join(filter(None, map(icap.describe, reading.patterns)))


def _fields(images: Sequence[np.ndarray], names: Sequence[str], config: Config) -> list[sources.Field]:
    """The images as fields of which nothing is known."""
    return [
        sources.make_field(
            image=image,
            classes=np.zeros(image.shape, np.uint8),
            instances=np.zeros(image.shape, np.uint16),
            specimen_id=name,
            number=0,
            split="",
            pattern=0,
            intensity="",
            config=config.data,
        )
        for image, name in zip(images, names, strict=True)
    ]
