"""Pixels of grey cells and their masks: decoding that refuses damaged files and stays quiet, PNG encoding."""

import io
import pathlib
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MASK_THRESHOLD = 127

RESIZED_SHAPE = (78, 78)
"""Height and width of every cell of the stretched public copy of I3A Task 1."""
_NATIVE_RANGE = (9, 254)  # lowest and highest grey level of the 13,596 native cells


def read_grey(path: pathlib.Path) -> np.ndarray:
    """Grey image, uint8 [height, width].

    Grey images that are stored as colour or with a palette are taken where red, green and blue agree.

    Raises:
        ValueError: The file is damaged, is no PNG, BMP or TIFF, is not 8-bit, or has colours.
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


def read_mask(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
    """Mask of one cell, uint8 [height, width], 255 on the cell; ValueError if damaged, empty, or not of `shape`."""
    mask = read_grey(path) > _MASK_THRESHOLD
    if mask.shape != shape:
        raise ValueError(
            f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}; "
            "restore the owner's file"
        )
    if not mask.any():
        raise ValueError(f"{path}: the mask is empty (no pixel above {_MASK_THRESHOLD}); restore the owner's file")
    return np.where(mask, np.uint8(255), np.uint8(0))


def is_stretched(image: np.ndarray) -> bool:
    """Whether a cell can only be of the stretched copy: of its size, with grey levels that no native cell has."""
    low, high = _NATIVE_RANGE
    return image.shape == RESIZED_SHAPE and bool(image.min() < low or image.max() > high)


def encode_png(grey: np.ndarray) -> io.BytesIO:
    """PNG file of uint8 [height, width], without colour profile."""
    done, encoded = cv2.imencode(".png", grey)
    if not done:
        raise ValueError(f"cannot encode an array of shape {grey.shape} and type {grey.dtype} as PNG")
    return io.BytesIO(encoded.tobytes())


def _decode(path: pathlib.Path) -> Image.Image:
    """A fully decoded PNG, BMP or TIFF.

    By Pillow, because OpenCV returns truncated files as if they were whole.
    """
    data = path.read_bytes()
    try:
        if data.startswith(_SIGNATURE):
            data = strip_png(data)
        with Image.open(io.BytesIO(data), formats=("PNG", "BMP", "TIFF")) as image:
            image.load()
            return image
    except Exception as error:  # Pillow reports damage by OSError, SyntaxError, ValueError, struct.error, ...
        reason = "not a PNG, BMP or TIFF image" if "cannot identify" in str(error) else f"damaged ({error})"
        raise ValueError(f"{path}: {reason}; restore the file from the owner's archive") from error


def strip_png(data: bytes) -> bytes:
    """A PNG file with nothing but its pixels: no colour profile, resolution, date or text.

    Many public files carry an RGB profile (iCCP) in a grey image, for which libpng writes a warning to stderr each
    time it opens one.

    Raises:
        ValueError: The file ends early, or a chunk of the pixels does not have its checksum.
    """
    kept, position, kind = [_SIGNATURE], len(_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the file is truncated")
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk, position = data[position : position + 12 + length], position + 12 + length
        if kind in _PIXEL_CHUNKS:
            kept.append(_checked(chunk, length))
    return b"".join(kept)


def _checked(chunk: bytes, length: int) -> bytes:
    if len(chunk) != 12 + length:
        raise ValueError("the file is truncated")
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise ValueError(f"wrong checksum of a chunk {chunk[4:8]!r}")
    return chunk
