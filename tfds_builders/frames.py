"""What readers of image files of any origin have in common: their result, their error and their limits."""

import dataclasses
from typing import Any

import numpy as np

from tfds_builders.pixels import MAX_PIXELS

MAX_SIDE = 50_000
MIN_SIDE = 8
MAX_PAGES = 1_000

TOO_LARGE = f"too large; at most {MAX_PIXELS // 10**6} million pixels and sides of {MAX_SIDE} are read"

_MICROMETRES = {
    **{"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0},
    **{"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4},  # as NGFF spells them
}


class ImageFileError(Exception):
    """A file that cannot be read as an image; the message is one line that names the file and the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One image of a file."""

    pixels: np.ndarray
    """uint8 or uint16, [height, width] grey or [height, width, 3] RGB."""
    page: int = 1
    """Number of the page, from 1."""
    num_pages: int = 1
    micrometres_per_pixel: float | None = None
    """Side of a pixel in µm, as OME, OME-Zarr or ImageJ metadata or the resolution of a TIFF file state it. None if the
    file does not, or states the resolution of a screen or a printer."""
    significant_bits: int | None = None
    """Bits that the camera filled, as OME metadata state it."""

    @property
    def pixels_8_bit(self) -> np.ndarray:
        """The pixels as uint8.

        16-bit levels are divided by the largest level of the bits that are used: the file's `significant_bits` or, if
        it has none, the fewest of 8, 10, 12, 14 and 16 that hold the brightest pixel. A 12-bit camera therefore fills
        the grey scale, and images of one camera are scaled alike unless they differ much in brightness.
        """
        if self.pixels.dtype == np.uint8:
            return self.pixels
        brightest = int(self.pixels.max())
        bits = next(b for b in (self.significant_bits or 8, 8, 10, 12, 14, 16) if brightest < 2**b)
        levels = (np.arange(brightest + 1) * (255 / (2**bits - 1))).round().astype(np.uint8)
        return levels[self.pixels]


def check_size(width: int, height: int) -> None:
    """Raise ImageFileError for an image of more than `MAX_PIXELS` or a side outside `MIN_SIDE` to `MAX_SIDE`."""
    if min(width, height) < MIN_SIDE:
        raise ImageFileError(f"{width} x {height} pixels: smaller than {MIN_SIDE} x {MIN_SIDE}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageFileError(f"{width} x {height} pixels: {TOO_LARGE}")


def micrometres(value: Any, unit: str) -> float | None:
    """A length in µm; None if it is no number, below 0 or above 1 cm, or if the unit is not known."""
    try:
        size = float(value) * _MICROMETRES[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return size if 0 < size < 1e4 else None
