"""Reads image files of any origin: PNG, JPEG, BMP and TIFF, with their size checked before memory is taken for pixels.

Rules of conversion: alpha is dropped; palettes and CMYK become RGB; images of 1, 2 and 4 bits are spread over 8; an
image that is turned by its EXIF or TIFF orientation is turned back. Each page of a TIFF file is a frame of its own,
except reduced copies and transparency masks of other pages.
"""

import contextlib
import dataclasses
import itertools
import logging
import pathlib
import re
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tfds_builders.pixels import MAX_PIXELS, quiet, strip_png

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".btf", ".tf8")
"""Usual endings of the names of files that `read` takes; the content decides, not the name."""
MAX_SIDE = 50_000
MIN_SIDE = 8
MAX_PAGES = 1_000
MAX_MICROMETRES = 10.0
"""Side of a pixel up to which the resolution of a TIFF file is believed: 2,540 dots per inch. Programs write 72 to
1,200 dots per inch into images that they know nothing of."""

_MAX_FILE_BYTES = 8 * MAX_PIXELS  # four channels of 16 bits, not compressed; does not apply to TIFF
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
# tifffile bounds what these decode to. JPEG streams within TIFF state a size of their own, which libtiff compares.
_BOUNDED = ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "ZSTD")
_BY_PILLOW = ("JPEG", "CCITTFAX3", "CCITTFAX4")
_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0}
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""What undoes each orientation of EXIF and TIFF."""

_TOO_LARGE = f"too large; at most {MAX_PIXELS // 10**6} million pixels and sides of {MAX_SIDE} are read"

logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # it logs damage, which is reported by an error here


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
    """Side of a pixel in µm, as OME or ImageJ metadata or the resolution of a TIFF file state it. None if the file does
    not, or states the resolution of a screen or a printer, above `MAX_MICROMETRES`."""
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


def read(path: pathlib.Path) -> Generator[Frame, None, None]:
    """The frames of an image file, decoded one after another.

    Raises:
        ImageFileError: the file is no PNG, JPEG, BMP or TIFF image, is damaged or cut short, has a kind of pixels that
            is not supported, has more than `MAX_PIXELS` pixels or a side outside `MIN_SIDE` to `MAX_SIDE`. The headers
            of all pages are checked before the first page is decoded.
    """
    frames = _frames(path)
    while (frame := _next(path, frames)) is not None:
        yield frame


def read_first(path: pathlib.Path) -> Frame:
    """The only frame of a file; raises ImageFileError as `read` does, and for a file of several pages."""
    with contextlib.closing(read(path)) as frames:
        frame = next(frames)
    if frame.num_pages > 1:
        raise ImageFileError(_one_line(f"{path}: has {frame.num_pages} pages instead of one"))
    return frame


def _frames(path: pathlib.Path) -> Iterator[Frame]:
    with path.open("rb") as file:
        head = file.read(26)
    yield from (_tiff_frames(path) if head.startswith(_TIFF_HEADS) else _plain_frame(path, head))


def _next(path: pathlib.Path, frames: Iterator[Frame]) -> Frame | None:
    """The next frame, or None after the last, with every error as an ImageFileError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of damage, which is reported by an error here
            return next(frames, None)
    except Exception as error:  # damaged files make decoders raise anything
        raise ImageFileError(_one_line(f"{path}: {_reason(error)}")) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ImageFileError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    return getattr(error, "strerror", None) or f"not an image, or damaged ({error})"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ImageFileError(f"{width} x {height} pixels: smaller than {MIN_SIDE} x {MIN_SIDE}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageFileError(f"{width} x {height} pixels: {_TOO_LARGE}")


def _plain_frame(path: pathlib.Path, head: bytes) -> Iterator[Frame]:
    if not head:
        raise ImageFileError("the file is empty")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ImageFileError(f"the file has more than {_MAX_FILE_BYTES // 10**6} MB")
    try:
        image = Image.open(path, formats=("PNG", "JPEG", "BMP"))
    except Image.UnidentifiedImageError:
        raise ImageFileError("not a PNG, JPEG, BMP or TIFF image, or damaged") from None
    except Image.DecompressionBombError:  # far above our limit
        raise ImageFileError(_TOO_LARGE) from None
    with image:
        _check_size(image.width, image.height)
        pixels = _png(path, head, image) if head.startswith(_PNG_HEAD) else _converted(image)
        yield Frame(pixels=_upright(pixels, image.getexif().get(0x0112, 1)))


def _png(path: pathlib.Path, head: bytes, image: Image.Image) -> np.ndarray:
    """The pixels of a PNG file, whose checksums Pillow does not compare."""
    data = strip_png(path.read_bytes())
    if head[24] == 16 and image.mode != "I;16":  # Pillow takes the high byte of 16-bit colours
        return _without_alpha(imagecodecs.png_decode(data))
    return _converted(image)


def _converted(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "L", "RGB", "I;16"):
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr"):
        return np.asarray(image.convert("RGB"))
    if image.mode == "LA":
        return np.asarray(image.getchannel(0))
    raise ImageFileError(f"pixels of the kind {image.mode}; convert it to 8 or 16 bits, grey or RGB")


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 3] of an array with 1 to 4 channels; one of two channels, or the fourth, is alpha."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]


def _upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return np.ascontiguousarray(turn(pixels) if turn else pixels)


def _tiff_frames(path: pathlib.Path) -> Iterator[Frame]:
    # Only pages are used, never `series`: OME metadata can name other files, anywhere, as parts of a series.
    with tifffile.TiffFile(path) as file:
        pages: list[Any] = list(itertools.islice(iter(file.pages), MAX_PAGES + 1))
        if len(pages) > MAX_PAGES:
            raise ImageFileError(f"more than {MAX_PAGES} pages")
        frames = [page for page in pages if not page.subfiletype & 0b101]
        size = path.stat().st_size
        for page in frames:
            _check_page(page, size)
        if (file.imagej_metadata or {}).get("images", 1) > len(pages) or not frames:
            raise ImageFileError("an ImageJ stack whose images have no pages of their own; save it as OME-TIFF")
        facts = _metadata(file)
        for number, page in enumerate(frames, start=1):
            try:
                pixels = _tiff_pixels(page)
            except Exception as error:
                raise ImageFileError(f"page {number}: {_reason(error)}") from error
            yield Frame(pixels=pixels, page=number, num_pages=len(frames), **facts)


def _check_page(page: Any, file_bytes: int) -> None:
    """Raise ImageFileError for a page that is too large, is not supported, or whose data are beyond the file's end."""
    _check_size(page.imagewidth, page.imagelength)
    if page.imagedepth != 1 or page.samplesperpixel not in (1, 2, 3, 4) or page.dtype not in (bool, "u1", "u2"):
        raise ImageFileError(
            f"pixels of the kind {page.dtype} with {page.samplesperpixel} channels; convert it to 8 or 16 bits, grey "
            "or RGB"
        )
    if page.tilewidth * page.tilelength > MAX_PIXELS or not (page.is_tiled or page.rowsperstrip):
        raise ImageFileError("damaged (size of its tiles or strips)")
    if page.compression.name not in _BOUNDED + _BY_PILLOW:
        raise ImageFileError(f"compression {page.compression.name} is not supported; save it with LZW or Deflate")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or min(map(min, segments)) < 1 or max(map(sum, segments)) > file_bytes:
        raise ImageFileError("damaged: the file is cut short")


def _tiff_pixels(page: Any) -> np.ndarray:
    if page.compression.name in _BY_PILLOW:
        return _page_by_pillow(page)
    return _upright(_page_by_tifffile(page), page.tags.valueof(274, 1))


def _page_by_pillow(page: Any) -> np.ndarray:
    with quiet(), Image.open(page.parent.filehandle.path, formats=("TIFF",)) as image:
        image.seek(page.index)
        _check_size(image.width, image.height)
        return _converted(image)  # Pillow turns the images of TIFF files itself


def _page_by_tifffile(page: Any) -> np.ndarray:
    # [channel plane, depth, height, width, channel]; one of the first and the last is 1
    planes = page.asarray(maxworkers=1, squeeze=False).reshape(page.shaped)[:, 0]
    pixels = np.moveaxis(planes, 0, -1)[..., 0, :] if page.planarconfig == 2 else planes[0]
    photometric = page.photometric.name
    if photometric == "PALETTE":
        return (np.moveaxis(page.colormap, 0, -1) >> 8).astype(np.uint8)[pixels[..., 0]]
    pixels = _spread(pixels, page.bitspersample)
    if photometric == "MINISWHITE":
        pixels = np.iinfo(pixels.dtype).max - pixels
    elif photometric == "SEPARATED":
        pixels = _from_cmyk(pixels)
    elif photometric not in ("MINISBLACK", "RGB"):
        raise ImageFileError(f"colours of the kind {photometric} are not supported; convert it to RGB")
    return _without_alpha(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _spread(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Levels of fewer than 8 bits, spread over 8 bits."""
    return pixels if bits >= 8 else (pixels * np.uint8(255 // (2**bits - 1))).astype(np.uint8)


def _from_cmyk(pixels: np.ndarray) -> np.ndarray:
    """RGB by the plain rule (1 - ink) (1 - black), without a colour profile, as Pillow converts."""
    if pixels.shape[-1] != 4:
        raise ImageFileError("inks other than CMYK are not supported; convert it to RGB")
    top = np.iinfo(pixels.dtype).max
    light = (top - pixels).astype(np.float32)
    return np.rint(light[..., :3] * (light[..., 3:] / top)).astype(pixels.dtype)


def _metadata(file: Any) -> dict[str, Any]:
    """`micrometres_per_pixel` and `significant_bits` of a file, where OME or ImageJ metadata state them."""
    if text := file.ome_metadata:
        pixels = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
        facts = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', pixels[1] if pixels else ""))
        bits = facts.get("SignificantBits", "")
        return {
            "micrometres_per_pixel": _micrometres(facts.get("PhysicalSizeX"), facts.get("PhysicalSizeXUnit", "µm")),
            "significant_bits": int(bits) if bits in map(str, range(8, 17)) else None,
        }
    unit = (file.imagej_metadata or {}).get("unit", "")
    numerator, denominator = file.pages.first.tags.valueof(282, (0, 1))
    value = denominator / numerator if numerator else None
    if file.is_imagej:
        return {"micrometres_per_pixel": _micrometres(value, str(unit).replace("\\u00B5", "µ"))}
    size = _micrometres(value, {2: "inch", 3: "cm"}.get(file.pages.first.tags.valueof(296, 2), ""))
    return {"micrometres_per_pixel": size if size and size <= MAX_MICROMETRES else None}


def _micrometres(value: Any, unit: str) -> float | None:
    try:
        size = float(value) * _MICROMETRES[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return size if 0 < size < 1e4 else None
