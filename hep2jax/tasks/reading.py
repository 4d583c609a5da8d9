"""A trained network as a reader of a user's images: it takes NumPy arrays and returns a typed reading."""

import abc
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.appearance import Look
from hep2jax.specimens.nuclear_size import NuclearSize, Scales, resized, resized_labels
from hep2jax.tasks.calibration import UNCALIBRATED, Calibration
from hep2jax.tasks.found_cells import FoundCell
from hep2jax.training.state import Network, Tree
from tfds_builders import icap

Parameters = tuple[Tree, Tree]
"""(params, batch_stats) of the averaged network."""
_Field = tuple[Look | None, Any]
"""What the detector and the network say of one field."""
DECIMALS = 6  # of shares and probabilities, as in `report/records.json`


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A network's reading of one image, or of one specimen from all its fields."""

    patterns: tuple[str, ...]
    """The predicted patterns, the most probable first: exactly one, or none if no cell was found; any number from a
    network for images with several patterns."""
    probabilities: Mapping[str, float]
    """Probability of every pattern, in [0, 1]. The sum is 1 if an image has one pattern; if it may have several, the
    probabilities are independent. A network that segments gives the shares of its votes (foreground pixels or
    patches), which are all 0 if no cell was found."""
    intensity: str = ""
    """`intermediate` or `positive`, or `none` if no cell was found; empty if the network grades no intensity."""
    class_masks: tuple[UInt8[np.ndarray, "_ _"], ...] = ()
    """One mask for each field, of the field's size: 0 is background, 1+i is the pattern `classes[i]` of the reader.
    Empty if the network does not segment."""
    cells: tuple[tuple[FoundCell, ...], ...] = ()
    """The cells of each field, in order of their labels. They are those that the evaluation measures: touching cells
    are separated if `evaluation.nuclear_diameter` is known; otherwise they count as one, and objects smaller than
    `evaluation.min_object_pixels` are left out. Empty if the network finds no cells in fields."""
    cell_labels: tuple[Int32[np.ndarray, "_ _"], ...] = ()
    """One label map for each field, of the field's size: 0 is background, `FoundCell.label` the cell. Empty as
    `cells`."""
    confidence: float | None = None
    """Calibrated probability that the pattern is right (that all of them are, if there may be several); 0 if no cell
    was found. None if the network is not calibrated."""
    novelty: float | None = None
    """How unlike the training images this one is: above 1 it lies over the threshold. Of several fields the highest."""
    verdict: str = UNCALIBRATED
    """What to make of the reading: one of the verdicts of `tasks.calibration`; empty if nothing speaks against it."""

    @property
    def judgement(self) -> dict[str, Any]:
        """Confidence, novelty and verdict, as tables show them."""
        values = {"confidence": self.confidence, "novelty": self.novelty}
        rounded = {name: "" if value is None else round(value, DECIMALS) for name, value in values.items()}
        return rounded | {"verdict": self.verdict}

    @property
    def pattern(self) -> str:
        """The patterns joined by ` + `, or `none` if there are none."""
        return " + ".join(self.patterns) or "none"

    @property
    def icap(self) -> tuple[str, ...]:
        """The consensus codes of the patterns, such as `AC-4`; a pattern may have several codes, or none."""
        return tuple(code for pattern in self.patterns for code in icap.codes(pattern))

    @property
    def icap_in_words(self) -> str:
        """The consensus codes by pattern, such as `AC-8 to AC-10 + AC-1`; empty if there are none."""
        return " + ".join(filter(None, map(icap.describe, self.patterns)))

    @property
    def rounded(self) -> dict[str, float]:
        """The probabilities, rounded as tables show them."""
        return {name: round(value, DECIMALS) for name, value in self.probabilities.items()}

    def at(self, shapes: Sequence[tuple[int, int]]) -> "Reading":
        """The reading of fields of these (height, width), from that of the same fields at another size."""
        if all(mask.shape == shape for mask, shape in zip(self.class_masks, shapes, strict=False)):
            return self
        fields = list(zip(self.class_masks, self.cell_labels, self.cells, shapes, strict=True))
        return dataclasses.replace(
            self,
            class_masks=tuple(resized_labels(mask, shape) for mask, _, _, shape in fields),
            cell_labels=tuple(resized_labels(labels, shape) for _, labels, _, shape in fields),
            cells=tuple(tuple(cell.resized(mask.shape, shape) for cell in cells) for mask, _, cells, shape in fields),
        )

    @property
    def num_cells(self) -> int:
        """The number of cells of all fields."""
        return sum(map(len, self.cells))

    @property
    def cell_masks(self) -> tuple[Bool[np.ndarray, "_ _"], ...]:
        """One mask for each field, true on cell pixels. Empty if the network does not segment."""
        return tuple(mask > 0 for mask in self.class_masks)


class Reader(abc.ABC):
    """A trained network, compiled once for all images.

    Attributes:
        config: the configuration that it was trained with.
        classes: the patterns in the order of the network's outputs.
        nuclear_size: how large the cells of the training images are; images are brought to that size before they are
            read. None: it is not known or does not matter, and images are read as they are.
        calibration: how its probabilities become confidences; None if it was trained without validation data.
        reads_specimens: whether several fields of one specimen can be read together.
        takes_masks: whether an image can come with the mask of its cell.
        finds_cells: whether readings hold masks and single cells.
        has_one_pattern: whether an image has one pattern, so that the probabilities of the patterns add up to 1.
        evaluator_class: the forward pass, the same as in the evaluation of the network.
    """

    reads_specimens: ClassVar[bool] = True
    takes_masks: ClassVar[bool] = False
    finds_cells: ClassVar[bool] = False
    has_one_pattern: ClassVar[bool] = True
    evaluator_class: ClassVar[type]
    nuclear_size: NuclearSize | None = None
    calibration: Calibration | None = None

    def __init__(
        self,
        config: Config,
        classes: Sequence[str],
        network: Network,
        parameters: Parameters,
        nuclear_size: NuclearSize | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.config, self.classes, self.nuclear_size = config, tuple(classes), nuclear_size
        self.calibration = calibration and calibration.with_threshold(config.evaluation.refer_below)
        self._parameters = parameters
        self._evaluator: Any = self.evaluator_class(config, network, meshes.make_mesh())

    def __call__(
        self,
        image: np.ndarray | Sequence[np.ndarray],
        mask: np.ndarray | None = None,
        *,
        nuclear_diameter: float | None = None,
    ) -> Reading:
        """Read one image, or one specimen from all its fields.

        Args:
            image: uint8 [height, width] grey or [height, width, 3] colour (RGB); several of them are the fields of one
                specimen. A network for cells takes the crop of one cell.
            mask: bool [height, width], true on the cell; only if the reader takes masks.
            nuclear_diameter: that of the nuclei in pixels, instead of measuring it (see `specimens.nuclear_size`).

        Raises:
            ValueError: an array has another dtype or shape; there is no field, or several for a reader of one image; or
                a diameter is given to a reader that has none to compare it with.
            UsageError: the network was trained with masks, and none is given.
        """
        fields = [image] if isinstance(image, np.ndarray) else list(image)
        if not fields or len(fields) > 1 and not self.reads_specimens:
            raise ValueError(f"{len(fields)} images: {self.config.model.name} was trained to read one image at a time")
        scales = Scales(self.nuclear_size, nuclear_diameter)
        run = list(self._run(fields, None if mask is None else [mask], scales=scales))
        return self._whole(run).at([field.shape[:2] for field in fields])

    def read(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
        *,
        scales: Scales | None = None,
    ) -> Iterator[Reading]:
        """Read each image by itself, in order and in full batches.

        Arguments as in a call; `names` are for messages. `scales` decides by which factors images are resized; with
        None, those of one shape among these images share one.
        """
        run = self._run(images, masks, names, scales=scales or Scales(self.nuclear_size))
        return (self._whole([field]).at([image.shape[:2]]) for field, image in zip(run, images, strict=True))

    def read_specimens(
        self,
        images: Sequence[np.ndarray],
        specimens: Sequence[str | None],
        names: Sequence[str] | None = None,
        *,
        scales: Scales | None = None,
    ) -> Iterator[tuple[Reading, Reading | None]]:
        """Read each image by itself and, after its last image, each specimen from all its images, as in a call.

        Args:
            images: as for `read`.
            specimens: the name of the specimen of each image, None if it belongs to none. The images of one specimen
                follow each other.
            names: for messages.
            scales: as for `read`.

        Returns:
            The readings of each image and, with the last image of a specimen, of this specimen; else None.
        """
        fields: list[_Field] = []
        run = self._run(images, None, names, scales=scales or Scales(self.nuclear_size))
        shapes = [image.shape[:2] for image in images]
        following = [*specimens[1:], None]
        for number, (field, name) in enumerate(zip(run, specimens, strict=True)):
            fields.append(field)
            ends = name is None or following[number] != name
            whole = self._whole(fields).at(shapes[number + 1 - len(fields) : number + 1]) if ends and name else None
            yield self._whole([field]).at([shapes[number]]), whole
            fields = [] if ends else fields

    def _whole(self, fields: Sequence[_Field]) -> Reading:
        """What all fields of one specimen say together, and how far that can be relied on."""
        reading = self._decide([output for _, output in fields])
        if self.calibration is None:
            return reading
        probabilities = np.array([reading.probabilities[name] for name in self.classes])
        looks = [look for look, _ in fields if look is not None]
        confidence, novelty, verdict = self.calibration.judge(probabilities, looks)
        return dataclasses.replace(reading, confidence=confidence, novelty=novelty, verdict=verdict)

    def _run(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
        *,
        scales: Scales,
    ) -> Iterable[_Field]:
        if masks is not None and not self.takes_masks:
            raise ValueError(f"a mask was given, but {self.config.model.name} reads whole images, without masks")
        names = names or [f"image {number}" for number in range(len(images))]
        grey = [self._select_channel(image, name) for image, name in zip(images, names, strict=True)]
        masks = masks or [np.broadcast_to(False, image.shape) for image in grey]
        for image, mask, name in zip(grey, masks, names, strict=True):
            if mask.shape != image.shape:
                raise ValueError(f"{name}: has shape {image.shape}, but its mask has shape {mask.shape}")
        factors = scales.factors(grey)
        scaled = [resized(image, factor) for image, factor in zip(grey, factors, strict=True)]
        masks = [resized_labels(mask, image.shape) for mask, image in zip(masks, scaled, strict=True)]
        return zip(self._looks(scaled), self._outputs(scaled, masks, names), strict=True)

    def _looks(self, images: Sequence[np.ndarray]) -> Iterator[Look | None]:
        """What the images look like, found in a thread while the network reads; None if there is no calibration."""
        if self.calibration is None:
            yield from itertools.repeat(None, len(images))
            return
        look = self.calibration.detector.look
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            yield from thread.map(lambda image: look(self.picture(image)), images)

    def picture(self, image: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "rows columns"]:
        """The image in the form in which it is compared with the training images."""
        return field_sets.resize_image(image, self.config.data.scale)

    def _select_channel(self, image: np.ndarray, name: str) -> UInt8[np.ndarray, "height width"]:
        if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or image.ndim == 3 == image.shape[2]):
            raise ValueError(
                f"{name}: must be uint8 [height, width] or [height, width, 3], not {image.dtype} {list(image.shape)}"
            )
        return field_sets.select_channel(image, self.config.data.channel)

    @abc.abstractmethod
    def _outputs(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]
    ) -> Iterable[Any]:
        """The evaluator's output for each image, in order."""

    @abc.abstractmethod
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        """The reading of all fields of one specimen, by the same decisions as in evaluation."""

    def row(self, reading: Reading) -> dict[str, Any]:
        """What `predictions.csv` says of an image besides its name: columns and their values."""
        return {"pattern": reading.pattern, "icap": reading.icap_in_words} | reading.judgement

    def _by_pattern(self, values: Iterable[float]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.classes, values, strict=True)}


class PatternReader(Reader):
    """A reader with networks that predict the probability of every pattern."""

    def _most_probable(self, values: np.ndarray) -> Reading:
        return Reading(patterns=(self.classes[int(values.argmax())],), probabilities=self._by_pattern(values))

    @override
    def row(self, reading: Reading) -> dict[str, Any]:
        """The common columns, the probability of the pattern, then that of every pattern."""
        probabilities = reading.rounded
        return super().row(reading) | {"probability": probabilities[reading.pattern], **probabilities}


def as_fields(images: Sequence[np.ndarray], names: Sequence[str], config: Config) -> list[field_sets.Field]:
    """The images as fields without annotations."""
    return [
        field_sets.make_field(
            image=image,
            # Views of one zero: the fields of many images are in memory together.
            classes=np.broadcast_to(np.uint8(0), image.shape),
            instances=np.broadcast_to(np.uint16(0), image.shape),
            specimen_id=name,
            number=0,
            split="",
            pattern=0,
            intensity="",
            config=config.data,
        )
        for image, name in zip(images, names, strict=True)
    ]
