"""Pixels of the owners' files: decoding, which rejects damaged files and prints nothing, and PNG encoding."""

import contextlib
import io
import os
import pathlib
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000
"""Largest image, such as 10,000 x 10,000; compared before memory is taken."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MASK_THRESHOLD = 127  # some masks are anti-aliased; half white counts as object


def read_grey(path: pathlib.Path) -> np.ndarray:
    """Read a grey image, uint8 [height, width].

    Images that are stored as colour or with a palette are accepted if red, green and blue are equal in every pixel.

    Raises:
        ValueError: the file is damaged, is not a PNG, BMP, TIFF or JPEG file, is not 8-bit, or has colours.
    """
    image = _decode(path)
    if image.mode == "L":
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode not in ("RGB", "P"):
        raise ValueError(f"{path}: expected an 8-bit grey image, found mode {image.mode}; restore the owner's file")
    colours = np.asarray(image.convert("RGB"))
    if (colours != colours[..., :1]).any():
        raise ValueError(f"{path}: expected a grey image, found one whose colours differ; restore the owner's file")
    return np.ascontiguousarray(colours[..., 0])


def read_colour(path: pathlib.Path) -> np.ndarray:
    """Read an RGB image, uint8 [height, width, 3]; raises ValueError if the file is damaged or not 24-bit colour."""
    image = _decode(path)
    if image.mode != "RGB":
        raise ValueError(f"{path}: expected a 24-bit RGB image, found mode {image.mode}; restore the owner's file")
    return np.asarray(image)


def read_any(path: pathlib.Path) -> np.ndarray:
    """Read a grey or colour image as RGB, uint8 [height, width, 3].

    Raises:
        ValueError: the file is damaged, or does not have 8 bits a channel.
    """
    image = _decode(path)
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        raise ValueError(f"{path}: expected an 8-bit image, found mode {image.mode}; restore the owner's file")
    return np.asarray(image.convert("RGB"))


def read_mask(path: pathlib.Path, shape: tuple[int, ...], *, may_be_empty: bool = False) -> np.ndarray:
    """Read a mask, bool [height, width]; raises ValueError if it is damaged, empty, or not of the given shape."""
    mask = read_grey(path) > _MASK_THRESHOLD
    if mask.shape != shape:
        raise ValueError(
            f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}; "
            "restore the owner's file"
        )
    if not (mask.any() or may_be_empty):
        raise ValueError(f"{path}: the mask is empty (no pixel above {_MASK_THRESHOLD}); restore the owner's file")
    return mask


def encode_png(pixels: np.ndarray) -> io.BytesIO:
    """Encode uint8 or uint16 [height, width], or uint8 RGB [height, width, 3], as PNG without colour profile.

    The result is a file object, because TFDS stores the bytes of one unchanged.
    """
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV takes BGR
    success, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered))
    if not success:
        raise ValueError(f"cannot encode an array of shape {pixels.shape} and type {pixels.dtype} as PNG")
    return io.BytesIO(encoded.tobytes())


def _decode(path: pathlib.Path) -> Image.Image:
    """Decode an image completely.

    Pillow decodes it, because OpenCV returns truncated files as if they were complete, and its libpng writes a warning
    to stderr for each of the many grey files that carry an RGB colour profile.
    """
    data = path.read_bytes()
    try:
        if data.startswith(_SIGNATURE):
            data = strip_png(data)
        with quiet(), Image.open(io.BytesIO(data), formats=("PNG", "BMP", "TIFF", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            image.load()
            return image
    except Exception as error:  # Pillow reports damage by OSError, SyntaxError, ValueError, struct.error, ...
        reason = "not a PNG, BMP, TIFF or JPEG image" if "cannot identify" in str(error) else f"damaged ({error})"
        raise ValueError(f"{path}: {reason}; restore the file from the owner's archive") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of damage off stderr, also those that libtiff writes there itself; errors are raised besides.

    What other threads write to stderr meanwhile is lost.
    """
    sys.stderr.flush()
    with warnings.catch_warnings(), open(os.devnull, "wb") as nowhere:
        warnings.simplefilter("ignore")
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def strip_png(data: bytes) -> bytes:
    """Remove everything except the pixels from a PNG file: colour profile, resolution, date and text.

    Raises:
        ValueError: the file ends early, or the checksum of a chunk with pixels is wrong.
    """
    chunks, position, kind = [_SIGNATURE], len(_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the file is truncated")
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk, position = data[position : position + 12 + length], position + 12 + length
        if kind in _PIXEL_CHUNKS:
            chunks.append(_checked(chunk, length))
    return b"".join(chunks)


def _checked(chunk: bytes, length: int) -> bytes:
    if len(chunk) != 12 + length:
        raise ValueError("the file is truncated")
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise ValueError(f"wrong checksum of a chunk {chunk[4:8]!r}")
    return chunk
