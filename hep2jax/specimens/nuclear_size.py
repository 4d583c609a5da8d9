"""The size of the cells in an image, measured without training, and the factor that brings images to another size."""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from hep2jax.metrics.grouping import evenly_spread
from hep2jax.specimens import classical

_WORKING_DIAMETER = 24.0
"""Nuclei are measured at this diameter in pixels, so that the work does not depend on the magnification."""
_MAX_PIXELS = 1_500_000
"""The largest window that is measured, at the working size; it lies in the middle of the image."""
_MAX_STEPS, _CONVERGED = 12, 0.03
_SAME = 0.15  # natural logarithm of the ratio of two diameters that may be one
_FIRST_SHARE = 0.25  # of the shorter side: the search starts at large diameters
_SMALLEST = 5.0  # pixels: smaller nuclei have no outline
_MIN_CELLS = 3
_LEAST_SPREAD, _LEAST_TOLERANCE = 0.15, 0.15
"""Smallest deviation of single images that is believed, and smallest tolerance, as natural logarithms of a ratio."""
TRAINING_IMAGES = 32
"""Number of training images that are measured, at most."""
_MEASURED_IMAGES, _LEAST_SHARE = 16, 0.5  # at most, of one shape; of these, what must be measured to be believed
LARGEST_FACTOR = 8.0
"""Images are enlarged or reduced by at most this factor."""
_MAX_ENLARGED = 50_000_000  # pixels: an image is not enlarged beyond them


@dataclasses.dataclass(frozen=True, kw_only=True)
class NuclearSize:
    """How large the cells of the images are that a network was trained on."""

    measured: float
    """Median over images of what `measure` finds, in pixels."""
    spread: float
    """Robust standard deviation of its natural logarithm over single images. Images of one magnification differ, since
    `measure` sees nuclei in some patterns and whole cells in others."""
    nuclear_diameter: float | None
    """Median diameter of the annotated cells in pixels; None if none is annotated."""

    def factor(self, measured: Sequence[float]) -> float:
        """The factor that brings images of one magnification to the size of the training images.

        It is the ratio of the medians, or exactly 1 if that ratio is within what images of one magnification differ by:
        two standard deviations of a median, and at least 15 %.

        Args:
            measured: what `measure` found in each of the images; may be empty.
        """
        if not len(measured):
            return 1.0
        difference = math.log(self.measured / float(np.median(measured)))
        tolerance = max(_LEAST_TOLERANCE, 2 * self.spread / math.sqrt(len(measured)))
        return 1.0 if abs(difference) <= tolerance else math.exp(difference)


class Scales:
    """The factors by which images are resized before a network reads them.

    Images of one shape come from one camera: all of them are resized by the same factor, which the first ones decide.
    A reading then does not depend on how the cells of a single specimen happen to be measured.
    """

    def __init__(self, size: NuclearSize | None, nuclear_diameter: float | None = None) -> None:
        """`size` is that of the training images; with None, images are read as they are.

        `nuclear_diameter`: that of the images, in pixels, instead of measuring it.

        Raises:
            ValueError: a diameter is given that is not positive, or that of the training images is unknown.
        """
        self._size, self._given = size, nuclear_diameter
        self._by_shape: dict[tuple[int, ...], float] = {}
        self._messages: list[str] = []
        if nuclear_diameter is not None and not 0 < nuclear_diameter < math.inf:
            raise ValueError(f"a nuclear diameter of {nuclear_diameter:g} pixels was given")
        if nuclear_diameter is not None and (size is None or size.nuclear_diameter is None):
            raise ValueError("a nuclear diameter was given, but that of the training images is unknown")

    def learn(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> None:
        """Decide on the factors of the shapes among these images that are new."""
        for shape in dict.fromkeys(image.shape for image in images):
            if shape not in self._by_shape:
                self._by_shape[shape] = self._decide([image for image in images if image.shape == shape])

    def factor(self, image: UInt8[np.ndarray, "_ _"]) -> float:
        """The factor of an image; the image itself decides if its shape is new."""
        self.learn([image])
        return self._by_shape[image.shape]

    def messages(self) -> list[str]:
        """What a user should know of the shapes that are new since the last call: one line for each that is resized."""
        new, self._messages = self._messages, []
        return new

    def _decide(self, images: Sequence[np.ndarray]) -> float:
        if self._size is None:
            return 1.0
        if self._given is not None and self._size.nuclear_diameter is not None:
            wanted, found = self._size.nuclear_diameter / self._given, self._given
        else:
            chosen = evenly_spread(images, _MEASURED_IMAGES)
            sizes = measure_each(chosen)
            if len(sizes) < _LEAST_SHARE * len(chosen):  # too small for three whole cells: specks were measured
                sizes = []
            wanted, found = self._size.factor(sizes), float(np.median(sizes)) if sizes else 0.0
        largest = min(LARGEST_FACTOR, max(1.0, math.sqrt(_MAX_ENLARGED / images[0].size)))
        factor = min(max(wanted, 1 / LARGEST_FACTOR), largest)
        if (factor, wanted) != (1, 1):
            self._messages.append(_describe(images[0].shape, found, self._size, factor, fits=factor == wanted))
        return factor


def _describe(shape: tuple[int, ...], found: float, size: NuclearSize, factor: float, *, fits: bool) -> str:
    text = (
        f"images of {shape[0]} x {shape[1]} pixels: their cells have a diameter of about {found:.0f} pixels and those "
        f"of the training images of {found * factor if fits else size.measured:.0f}; they are resized by {factor:.2f}"
    )
    return text if fits else f"{text}, which is not enough: do not trust these readings"


def summarise(measured: Sequence[float], annotated: Sequence[float]) -> NuclearSize | None:
    """The size of the cells of some images, from `measure` of each and the diameters of the annotated cells.

    None if no image could be measured.
    """
    if not len(measured):
        return None
    median = float(np.median(measured))
    deviation = 1.4826 * float(np.median(np.abs(np.log(np.asarray(measured) / median))))  # that of a normal law
    diameter = float(np.median(annotated)) if len(annotated) else None
    return NuclearSize(measured=median, spread=max(_LEAST_SPREAD, deviation), nuclear_diameter=diameter)


def diameters(instances: Integer[np.ndarray, "height width"]) -> dict[int, float]:
    """The diameter of each object of a label map (0 is background), in pixels: that of a disc of the same area."""
    areas = np.bincount(instances.ravel())
    return {label: math.sqrt(4 / math.pi * areas[label]) for label in np.flatnonzero(areas).tolist() if label}


def measure_each(images: Iterable[UInt8[np.ndarray, "_ _"]]) -> list[float]:
    """The diameter of the cells of each image in which they can be measured, found in several threads."""
    sizes, remaining, workers = [], iter(images), min(4, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        # Images may be decoded as they are taken: no more of them than threads are in memory.
        while taken := list(itertools.islice(remaining, workers)):
            sizes += threads.map(measure, taken)
    return [size for size in sizes if size is not None]


def measure(image: UInt8[np.ndarray, "height width"]) -> float | None:
    """The diameter of the cells in an image, in pixels; None if fewer than three whole cells are found.

    Cells are segmented (`classical.segment`, with the logarithm of the intensity) with an assumed diameter; the size of
    what is found is the next assumption, from large ones down, until both agree. The size is that of the object in
    which the median foreground pixel lies, so that specks do not count. None also if they never agree, as in images
    that show fewer than three whole cells: specks, or parts of cells, then lead back to diameters with which nothing
    was found.

    Args:
        image: the channel that contains the stain, of any size.
    """
    diameter = max(_FIRST_SHARE * min(image.shape), _SMALLEST)
    found, difference, without_cells = None, math.inf, []
    for _ in range(_MAX_STEPS):
        found = _typical_diameter(image, diameter)
        if found is None:
            without_cells.append(diameter)
            diameter *= 0.6
        else:
            difference = abs(math.log(found / diameter))
            if difference < _CONVERGED:
                return found
            diameter *= min(max(found / diameter, 0.5), 1.6)
            if any(abs(math.log(diameter / tried)) < _SAME for tried in without_cells):
                return None
        if diameter < _SMALLEST:
            return None
    return found if difference < _SAME else None


def _typical_diameter(image: np.ndarray, assumed: float) -> float | None:
    """The typical diameter of the whole cells that are found if nuclei are assumed to have a diameter."""
    scale = _WORKING_DIAMETER / assumed
    small = resized(_window(image, scale), scale)
    cells = classical.segment(small, variant="otsu_log_watershed", nuclear_diameter=_WORKING_DIAMETER)
    cells = classical.drop_cut_cells(cells, _WORKING_DIAMETER)
    areas = np.sort(np.bincount(cells.ravel())[1:])
    areas = areas[areas > 0]
    if len(areas) < _MIN_CELLS:
        return None
    typical = areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)]
    return math.sqrt(4 / math.pi * float(typical)) / scale


def _window(image: np.ndarray, scale: float) -> np.ndarray:
    """The middle of the image, of at most `_MAX_PIXELS` once it is scaled."""
    share = min(math.sqrt(_MAX_PIXELS / (image.size * scale**2)), 1.0)
    height, width = (max(1, round(side * share)) for side in image.shape)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def resized(image: UInt8[np.ndarray, "height width"], factor: float) -> np.ndarray:
    """The image with sides multiplied by `factor`, by area averages or cubic interpolation; uint8."""
    if factor == 1.0:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method)


def resized_labels(labels: Shaped[np.ndarray, "height width"], shape: tuple[int, int]) -> np.ndarray:
    """A label map brought to another shape, by the nearest label; its dtype stays."""
    if labels.shape == shape:
        return labels
    kind = labels.dtype
    enlarged = cv2.resize(labels.astype(np.float32), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return enlarged.astype(kind)
