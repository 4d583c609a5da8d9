"""PNG files of masks and overlays, in a fifth of the time of OpenCV.

OpenCV tries every filter of PNG on every row once a level of compression is asked for. Masks and outlines on grey
images hardly need filters, and zlib-ng compresses them several times as fast as zlib.
"""

import struct
import zlib

import imagecodecs
import numpy as np
from jaxtyping import UInt8, UInt16

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3
_NO_FILTER = 0
_LEVEL_OF_MASKS, _LEVEL_OF_COLOURS = 2, 1  # the fastest for each


def encode(
    pixels: UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"],
    palette: UInt8[np.ndarray, "colours 3"] | None = None,
) -> bytes:
    """A PNG file of a grey image of 8 or 16 bits, or of an image of 8 bits that indexes a palette (RGB)."""
    height, width = pixels.shape
    samples = pixels.astype(pixels.dtype.newbyteorder(">"), order="C", copy=False)
    rows = samples.reshape(height, -1).view(np.uint8)
    filtered = np.full((height, rows.shape[1] + 1), _NO_FILTER, np.uint8)  # each row begins with its filter
    filtered[:, 1:] = rows
    kind = _GREY if palette is None else _INDEXED
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    colours = () if palette is None else _chunk(b"PLTE", palette.tobytes())
    level = _LEVEL_OF_MASKS if palette is None else _LEVEL_OF_COLOURS
    data = imagecodecs.zlibng_encode(filtered.tobytes(), level=level)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *colours, *_chunk(b"IDAT", data), *_chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes | bytearray) -> tuple[bytes | bytearray, ...]:
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
