"""A trained network as a reader of a user's images: it takes NumPy arrays and returns a typed reading."""

import abc
import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from typing_extensions import override

from hep2jax import background
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
_DECIDED_AHEAD = 2  # readings that wait for the caller; each holds masks of the size of its image
_GROUP_PIXELS, _GROUP_IMAGES = 16_000_000, 256  # bound the memory

_Sized = TypeVar("_Sized")
DECIMALS = 6  # of shares and probabilities, as in `report/records.json`


class Input(NamedTuple):
    """An image to read."""

    pixels: np.ndarray
    """uint8 [height, width] grey or [height, width, 3] colour (RGB)."""
    name: str = "image"
    """For messages."""
    mask: np.ndarray | None = None
    """bool [height, width], true on the cell; only for readers that take masks."""
    specimen: str | None = None
    """The name of its specimen; the images of one specimen follow each other."""


class Ready(NamedTuple):
    """An image as a network takes it: one channel, resized."""

    image: UInt8[np.ndarray, "height width"]
    mask: Bool[np.ndarray, "height width"]
    name: str


class _Field(NamedTuple):
    """What is said of one image."""

    shape: tuple[int, int]
    """Of the image before it was resized."""
    specimen: str | None
    look: Look | None
    """What the detector says."""
    output: Any
    """What the network says."""


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
    def foreground(self) -> float:
        """The share of the pixels of all fields that are cell. Only if the network segments."""
        inside = sum(np.count_nonzero(mask) for mask in self.class_masks)
        return inside / sum(mask.size for mask in self.class_masks)

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
        inputs = [Input(field, f"image {number}", mask) for number, field in enumerate(fields)]
        return self._whole(list(self._run(inputs, Scales(self.nuclear_size, nuclear_diameter))))

    def read(self, images: Sequence[np.ndarray]) -> Iterator[Reading]:
        """Read each image by itself, in order and in full batches; those of one shape are resized by one factor."""
        return (reading for reading, _ in self.stream([Input(image) for image in images]))

    def stream(self, inputs: Iterable[Input], scales: Scales | None = None) -> Iterator[tuple[Reading, Reading | None]]:
        """Read each image by itself and, after its last image, each specimen from all its images, as in a call.

        The images are taken a few batches ahead of the readings, and never all at once.

        Args:
            inputs: the images. Those of a list that have one shape share one factor by which they are resized; of an
                iterator, the first one of each shape decides that `scales` has not seen.
            scales: decides by which factors images are resized.

        Returns:
            The reading of each image, in order, and with the last image of a specimen the reading of this specimen;
            otherwise None.
        """
        run = self._run(inputs, scales or Scales(self.nuclear_size))
        return background.made(self._both, _with_specimens(run), ahead=_DECIDED_AHEAD)

    def _both(self, read: tuple[_Field, Sequence[_Field]]) -> tuple[Reading, Reading | None]:
        field, specimen = read
        return self._whole([field]), self._whole(specimen) if specimen else None

    def _whole(self, fields: Sequence[_Field]) -> Reading:
        """What all fields of one specimen say together, and how far that can be relied on."""
        reading = self._decide([field.output for field in fields]).at([field.shape for field in fields])
        if self.calibration is None:
            return reading
        probabilities = np.array([reading.probabilities[name] for name in self.classes])
        looks = [field.look for field in fields if field.look is not None]
        confidence, novelty, verdict = self.calibration.judge(probabilities, looks)
        return dataclasses.replace(reading, confidence=confidence, novelty=novelty, verdict=verdict)

    def _run(self, inputs: Iterable[Input], scales: Scales) -> Iterator[_Field]:
        """What is said of each image. A thread looks at the images while the network reads them."""
        if isinstance(inputs, Sequence):
            scales.learn([self._select_channel(given) for given in inputs])
        with background.thread() as thread:
            waiting = collections.deque[tuple[Input, concurrent.futures.Future[Look | None]]]()

            def ready() -> Iterator[Ready]:
                for given in inputs:
                    made = self._make_ready(given, scales)
                    waiting.append((given, thread.submit(self._look, made.image)))
                    yield made

            for output in self._outputs(ready()):
                given, look = waiting.popleft()
                height, width, *_ = given.pixels.shape
                yield _Field((height, width), given.specimen, look.result(), output)

    def _make_ready(self, given: Input, scales: Scales) -> Ready:
        image, mask = self._select_channel(given), given.mask
        if mask is not None and not self.takes_masks:
            raise ValueError(f"a mask was given, but {self.config.model.name} reads whole images, without masks")
        if mask is None:
            mask = np.broadcast_to(False, image.shape)
        if mask.shape != image.shape:
            raise ValueError(f"{given.name}: has shape {image.shape}, but its mask has shape {mask.shape}")
        scaled = resized(image, scales.factor(image))
        return Ready(scaled, resized_labels(mask, scaled.shape), given.name)

    def _look(self, image: np.ndarray) -> Look | None:
        """What an image looks like; None if there is no calibration."""
        return self.calibration and self.calibration.detector.look(self.picture(image))

    def picture(self, image: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "rows columns"]:
        """The image in the form in which it is compared with the training images."""
        return field_sets.resize_image(image, self.config.data.scale)

    def _select_channel(self, given: Input) -> UInt8[np.ndarray, "height width"]:
        image = given.pixels
        if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or image.ndim == 3 == image.shape[2]):
            raise ValueError(
                f"{given.name}: must be uint8 [height, width] or [height, width, 3], not {image.dtype} "
                f"{list(image.shape)}"
            )
        return field_sets.select_channel(image, self.config.data.channel)

    @abc.abstractmethod
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        """The evaluator's output for each image, in order. Images are taken as they are needed."""

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


def _with_specimens(fields: Iterable[_Field]) -> Iterator[tuple[_Field, Sequence[_Field]]]:
    """Each field and, with the last one of a specimen, all fields of this specimen; otherwise none."""
    together: list[_Field] = []
    previous = None
    for field in itertools.chain(fields, [None]):
        if previous is not None:
            together += [previous] if previous.specimen is not None else []
            is_last = field is None or field.specimen != previous.specimen
            yield previous, together if is_last else []
            together = [] if is_last else together
        previous = field


def in_groups(items: Iterable[_Sized], num_pixels: Callable[[_Sized], int]) -> Iterator[list[_Sized]]:
    """Lists of successive items, of at most 256 images and 16 million pixels, or of one image that is larger."""
    group, size = list[_Sized](), 0
    for item in items:
        if group and (len(group) == _GROUP_IMAGES or size + num_pixels(item) > _GROUP_PIXELS):
            yield group
            group, size = [], 0
        group.append(item)
        size += num_pixels(item)
    if group:
        yield group


def as_fields(images: Iterable[Ready], config: Config) -> Iterator[field_sets.Field]:
    """The images as fields without annotations."""
    return (as_field(given.image, given.name, config) for given in images)


def as_field(image: UInt8[np.ndarray, "height width"], name: str, config: Config) -> field_sets.Field:
    """An image as a field without annotations."""
    return field_sets.make_field(
        image=image,
        # Views of one zero: several fields are in memory together.
        classes=np.broadcast_to(np.uint8(0), image.shape),
        instances=np.broadcast_to(np.uint16(0), image.shape),
        specimen_id=name,
        number=0,
        split="",
        pattern=0,
        intensity="",
        config=config.data,
    )
