"""What an image looks like, in a few numbers that need no network, and how far that is from the training images.

The detector of what is no HEp-2 image: the Mahalanobis distance of these numbers from those of the training images
(as Lee et al., NeurIPS 2018, of a network's features), with the covariance of Ledoit and Wolf (2004).
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from scipy import fft

from hep2jax.grey_levels import percentiles

_LEAST_SIDE, _CELL_SIDE = 64, 64
_MOST_SIDE = 1024  # bounds the time of large images; the bands of their middle are those of the whole
_BANDS = 0.5 / 2.0 ** np.arange(7)  # cycles per pixel, from the finest octave to the sixth
_DEVIATIONS = 3.0
_FAINT_SHARE = 0.8
NUMBERS = 17

Numbers = Float[np.ndarray, "image numbers"]


def of_cell(image: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "side side"]:
    """The crop of a cell in the size in which `describe` takes it."""
    return cv2.resize(image, (_CELL_SIDE, _CELL_SIDE), interpolation=cv2.INTER_AREA)


def signal(image: UInt8[np.ndarray, "height width"]) -> float:
    """How much brighter the brightest hundredth of an image is than its background (the median), in grey levels."""
    return _smooth(image).signal()


def describe(image: UInt8[np.ndarray, "height width"]) -> Float[np.ndarray, " numbers"]:
    """Grey levels, their distribution, and the power in six octaves of spatial frequency; float64 [17].

    The image is one at working resolution. Its median counts as background, and the span from there to the brightest
    hundredth as 1.
    """
    bounded = _bounded(image)
    return _describe(bounded, _smooth(bounded))


class _Smooth(NamedTuple):
    """An image without its noise."""

    blurred: Float32[np.ndarray, "height width"]
    brightest: float
    """Its 99th percentile."""
    median: float

    def signal(self) -> float:
        return self.brightest - self.median


def _smooth(image: np.ndarray) -> _Smooth:
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    median, brightest = np.percentile(blurred, (50, 99)).tolist()
    return _Smooth(blurred, brightest, median)


def _describe(image: np.ndarray, smooth: _Smooth) -> np.ndarray:
    levels = percentiles(image, [1, 25, 50, 75, 95, 99.9])
    background = levels[2]
    span = max(smooth.brightest - background, 1.0)
    relative = (smooth.blurred - background) / span
    return np.array(
        [
            np.log(background + 1),
            np.log(span),
            *((levels[[0, 1, 3, 4, 5]] - background) / span),
            *(np.count_nonzero(part) / image.size for part in (relative > 0.2, relative > 0.5, relative < -0.1)),
            np.log(slopes(relative).mean() + 1e-3),
            *_spectrum((image - background) / span),
        ],
        np.float64,
    )


def slopes(relative: Float64[np.ndarray, "height width"]) -> Float64[np.ndarray, "height width"]:
    """The length of the gradient by central differences, `numpy.hypot(*numpy.gradient(relative))`."""
    down = cv2.Sobel(relative, cv2.CV_64F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    right = cv2.Sobel(relative, cv2.CV_64F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    down[[0, -1]] *= 2  # there, neighbours are one pixel apart
    right[:, [0, -1]] *= 2
    return cv2.magnitude(down, right)


def _bounded(image: np.ndarray) -> np.ndarray:
    """The middle of a large image; a small one is enlarged, so that every octave has a frequency."""
    height, width = image.shape
    if min(height, width) < _LEAST_SIDE:
        size = (max(width, _LEAST_SIDE), max(height, _LEAST_SIDE))
        return _bounded(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    top, left = max(height - _MOST_SIDE, 0) // 2, max(width - _MOST_SIDE, 0) // 2
    return image[top : top + _MOST_SIDE, left : left + _MOST_SIDE]


def _spectrum(relative: np.ndarray) -> list[float]:
    """The logarithm of the mean power in each octave, of the image under a Hann window."""
    height, width = relative.shape
    down, right = np.hanning(height), np.hanning(width)
    windowed = (relative - relative.mean()) * down[:, None] * right
    spectrum = np.asarray(fft.rfft2(windowed.astype(np.float32)))  # in half the time of float64
    power = np.square(np.abs(spectrum)) / (np.square(down).sum() * np.square(right).sum())
    return [float(np.log(power[octave].mean(dtype=np.float64) + 1e-6)) for octave in _octaves(height, width)]


@functools.lru_cache(maxsize=8)  # images come in few shapes
def _octaves(height: int, width: int) -> tuple[np.ndarray, ...]:
    """The frequencies of a spectrum in each octave, bool [height, width / 2 + 1]."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return tuple((frequency <= high) & (frequency > low) for high, low in zip(_BANDS[:-1], _BANDS[1:], strict=True))


class Look(NamedTuple):
    """What a detector says of an image."""

    novelty: float
    """See `Detector.novelty`."""
    is_faint: bool
    """See `Detector.is_faint`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """Says how unlike the training images an image is."""

    mean: Float[np.ndarray, " numbers"]
    precision: Float[np.ndarray, "numbers numbers"]
    """The inverse of the covariance."""
    threshold: float
    """The distance that counts as 1."""
    least_signal: float
    """The signal below which an image is fainter than the training images; 0 if that is not judged."""

    @classmethod
    def fit(cls, training: Iterable[np.ndarray], validation: Iterable[np.ndarray], *, judges_signal: bool) -> Self:
        """Learn what training images look like; the threshold is set on validation images alone.

        The threshold lies three standard deviations above the mean of the logarithm of the distances of the
        validation images. The least signal is 80 % of that of the faintest training image.
        """
        from sklearn.covariance import LedoitWolf  # late: scikit-learn takes most of a second, and only fits need it

        images = list(training)
        numbers = np.stack([describe(image) for image in images])
        scale = numbers.std(axis=0) + 1e-9
        precision = LedoitWolf().fit((numbers - numbers.mean(axis=0)) / scale).precision_ / np.outer(scale, scale)
        least = _FAINT_SHARE * min(map(signal, images)) if judges_signal else 0.0
        fitted = cls(mean=numbers.mean(axis=0), precision=precision, threshold=1.0, least_signal=least)
        logarithms = np.log([fitted.novelty(image) for image in validation])
        threshold = float(np.exp(logarithms.mean() + _DEVIATIONS * logarithms.std()))
        return dataclasses.replace(fitted, threshold=threshold)

    def look(self, image: UInt8[np.ndarray, "height width"]) -> Look:
        """All that is said of an image."""
        bounded = _bounded(image)
        smooth = _smooth(bounded)
        whole = smooth if bounded.shape == image.shape else _smooth(image)
        return Look(self.distance(_describe(bounded, smooth)), self._is_less(whole))

    def novelty(self, image: UInt8[np.ndarray, "height width"]) -> float:
        """The distance from the training images, as a multiple of the threshold: above 1 the image is unlike them."""
        return self.distance(describe(image))

    def distance(self, numbers: Float[np.ndarray, " numbers"]) -> float:
        """The novelty of an image that `describe` describes by these numbers."""
        difference = numbers - self.mean
        return float(np.sqrt(max(difference @ self.precision @ difference, 1e-12)) / self.threshold)

    def is_faint(self, image: UInt8[np.ndarray, "height width"]) -> bool:
        """Whether the image is fainter than the training images."""
        return self._is_less(_smooth(image))

    def _is_less(self, smooth: _Smooth) -> bool:
        return self.least_signal > 0 and smooth.signal() < self.least_signal

    def to_record(self) -> dict[str, Any]:
        """The detector for JSON."""
        return dataclasses.asdict(self) | {"mean": self.mean.tolist(), "precision": self.precision.tolist()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Inverse of `to_record`.

        Raises:
            KeyError, TypeError, ValueError: the record is not one of a detector.
        """
        mean, precision = np.array(record["mean"], np.float64), np.array(record["precision"], np.float64)
        threshold, least = float(record["threshold"]), float(record["least_signal"])
        if mean.shape != (NUMBERS,) or precision.shape != (NUMBERS, NUMBERS) or not 0 < threshold < np.inf:
            raise ValueError("the detector has another shape")
        if not (np.isfinite(mean).all() and np.isfinite(precision).all() and np.isfinite(least)):
            raise ValueError("the detector has values that are not finite")
        return cls(mean=mean, precision=precision, threshold=threshold, least_signal=least)
