"""Pixels of the owner's files: decoding that refuses damaged ones, painting of object masks, PNG encoding."""

import io
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

_MASK_THRESHOLD = 127  # a few of the owner's masks are anti-aliased; half white counts as object


def read_image(path: pathlib.Path) -> np.ndarray:
    """RGB image, uint8 [height, width, 3]; ValueError if the file is damaged or not 24-bit colour."""
    image = _decode(path)
    if image.mode != "RGB":
        raise ValueError(f"{path}: expected a 24-bit RGB image, found mode {image.mode}; restore the owner's file")
    return np.asarray(image)


def read_mask(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
    """Mask of one object, bool [height, width]; ValueError if damaged, empty, or not of `shape`.

    The owner's masks are 1-bit or 8-bit grey.
    """
    image = _decode(path)
    if image.mode not in ("1", "L", "P"):
        raise ValueError(f"{path}: expected a 1-bit or 8-bit mask, found mode {image.mode}; restore the owner's file")
    mask = np.asarray(image.convert("L")) > _MASK_THRESHOLD
    if mask.shape != shape:
        raise ValueError(
            f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}; "
            "restore the owner's file"
        )
    if not mask.any():
        raise ValueError(f"{path}: the mask is empty (no pixel above {_MASK_THRESHOLD}); restore the owner's file")
    return mask


def _decode(path: pathlib.Path) -> Image.Image:
    """A fully decoded BMP or PNG.

    By Pillow, because OpenCV returns truncated files as if they were whole, and its libpng writes a warning to
    stderr for each of the many grey files that carry an RGB colour profile.
    """
    try:
        with Image.open(path, formats=("BMP", "PNG")) as image:
            image.load()
            return image
    except PermissionError:
        raise
    except Exception as error:  # Pillow reports damage by OSError, SyntaxError, ValueError, struct.error, ...
        reason = "not a BMP or PNG image" if "cannot identify" in str(error) else f"damaged ({error})"
        raise ValueError(f"{path}: {reason}; restore the file from the owner's archive") from error


def paint_objects(masks: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Instance mask, uint16 [height, width]: 0 background, k the k-th of `masks` (bool [height, width]).

    Objects overlap; they are painted by descending area, so that a small object stays visible on a large one
    (of two equal ones, the later lies on top).
    """
    instances = np.zeros(shape, np.uint16)
    areas = [int(mask.sum()) for mask in masks]
    for index in sorted(range(len(masks)), key=lambda i: -areas[i]):
        instances[masks[index]] = index + 1
    return instances


def encode_png(pixels: np.ndarray) -> io.BytesIO:
    """PNG file of uint8 or uint16 [height, width], or uint8 RGB [height, width, 3]."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered))
    if not done:
        raise ValueError(f"cannot encode an array of shape {pixels.shape} and type {pixels.dtype} as PNG")
    return io.BytesIO(encoded.tobytes())
