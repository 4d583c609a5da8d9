"""The pixels of a user's folder: images and masks of any usual kind, and a survey of all of them."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from tfds_builders import image_files
from tfds_builders.folder import layout
from tfds_builders.image_files import ImageFileError
from tfds_builders.owner_files import shorten

MAX_CELL_SIDE = 1024
"""Longest side of the image of one cell in pixels; larger ones are fields."""

_WHITE = 255
_THRESHOLD = 127  # masks may be anti-aliased; half white counts as object
_MAX_OBJECTS = np.iinfo(np.uint16).max
_MAX_NAMES = 4
_MUCH = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image with its mask."""

    image: np.ndarray
    """uint8 [height, width, 3], RGB."""
    instances: np.ndarray | None
    """uint16 [height, width]: 0 background, k on object k; None if there is no mask."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What reading every file of a folder has shown."""

    contents: layout.Contents
    faults: tuple[str, ...]
    """All faults, those of the table first."""
    notes: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each image."""
    green: bool
    """Whether there are colour images, and green is much the brightest channel of all of them."""
    num_objects: int
    """Number of objects in all masks."""
    nuclear_diameter: float
    """Median diameter in pixels of circles with the objects' areas, without those that touch the frame; 0: none."""


def read(row: layout.Row, kind: str) -> Picture:
    """Read the image and the mask of a row.

    Raises:
        ValueError: a file is damaged, too large or of the wrong kind; the message begins with the place of the row.
    """
    try:
        pixels = _decoded(row.image).pixels_8_bit
        image = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
        height, width = image.shape[:2]
        if kind == layout.CELLS and max(height, width) > MAX_CELL_SIDE:
            raise ValueError(
                f"'{row.name}' has {width} x {height} pixels and cannot be one cell (at most {MAX_CELL_SIDE}); "
                "a folder of whole fields is read with builder_config=specimens"
            )
        return Picture(image=image, instances=_instances(row.mask, (height, width)) if row.mask else None)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error


def survey(folder: pathlib.Path, kind: str) -> Survey:
    """Read the table and every file that it names; raises as `layout.read_contents` does."""
    contents = layout.read_contents(folder, kind)
    faults, sizes, diameters = list(contents.faults), [], []
    num_objects, first, repeats, greens = 0, {}, [], []
    for row in contents.rows:
        try:
            picture = read(row, kind)
        except ValueError as error:
            faults.append(str(error))
            continue
        sizes.append(picture.image.shape[1::-1])
        red, green, blue = picture.image.mean(axis=(0, 1))
        greens += [green > _MUCH * max(red, blue)] if (picture.image != picture.image[..., :1]).any() else []
        digest = hashlib.sha256(repr(picture.image.shape).encode() + picture.image.tobytes()).digest()
        if (other := first.setdefault(digest, row)) is not row:
            repeats.append(f"row {row.line} = row {other.line}")
        if picture.instances is not None:
            num_objects += int(picture.instances.max())
            diameters += _diameters(picture.instances)
    masks = sum(row.mask is not None for row in contents.rows)
    notes = [f"images that repeat another one pixel for pixel: {shorten(repeats, _MAX_NAMES)}"] if repeats else []
    if masks and not faults and (num_objects > _MUCH * masks) == (kind == layout.CELLS):
        other = layout.SPECIMENS if kind == layout.CELLS else layout.CELLS
        notes.append(f"{num_objects} objects in {masks} masks: are these not {other}? Then take builder_config={other}")
    return Survey(
        contents=contents,
        faults=tuple(faults),
        notes=(*contents.notes, *notes),
        sizes=tuple(sizes),
        green=bool(greens) and all(greens),
        num_objects=num_objects,
        nuclear_diameter=float(np.median(diameters)) if diameters else 0.0,
    )


def _decoded(path: pathlib.Path) -> image_files.Frame:
    try:
        return image_files.read_first(path)
    except ImageFileError as error:
        raise ValueError(f"'{path.name}': {str(error).removeprefix(f'{path}: ')}") from error
    except OSError as error:
        raise ValueError(f"'{path.name}': cannot be read ({error.strerror})") from error


def _instances(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
    """The objects of a mask, numbered from 1 without a gap, uint16 [height, width].

    A mask with one level besides 0, or of 8 bits with white (255) in it, shows where cells are, and its connected
    regions are the objects. In any other mask, each level is an object.
    """
    levels = _decoded(path).pixels
    if levels.ndim == 3:
        if (levels != levels[..., :1]).any():
            raise ValueError(f"the mask '{path.name}' has colours; save it with white cells or with numbered ones")
        levels = levels[..., 0]
    if levels.shape != shape:
        sizes = f"{levels.shape[1]} x {levels.shape[0]} pixels, its image {shape[1]} x {shape[0]}"
        raise ValueError(f"the mask '{path.name}' has {sizes}")
    counts = np.bincount(levels.ravel())
    present = np.flatnonzero(counts[1:]) + 1
    if levels.dtype == np.uint8 and len(present) > 1 and present[-1] == _WHITE:
        levels, present = (levels > _THRESHOLD).astype(np.uint8), np.array([1])
    if not len(present):
        raise ValueError(f"the mask '{path.name}' is empty: no pixel is above 0")
    if len(present) == 1:
        return _regions(levels > 0, path)
    numbers = np.zeros(len(counts), np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    return numbers[levels]


def _regions(mask: np.ndarray, path: pathlib.Path) -> np.ndarray:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    if count - 1 > _MAX_OBJECTS:
        raise ValueError(f"the mask '{path.name}' has {count - 1} separate regions, more than {_MAX_OBJECTS}")
    return labels.astype(np.uint16)


def _diameters(instances: np.ndarray) -> Iterator[float]:
    """Diameters of the objects that do not touch the frame."""
    areas = np.bincount(instances.ravel()).astype(float)
    areas[0] = 0
    if instances.max() > 1:  # the mask of a single cell may fill its crop
        for edge in (instances[0], instances[-1], instances[:, 0], instances[:, -1]):
            areas[edge] = 0
    yield from (2 * np.sqrt(areas[areas > 0] / np.pi)).tolist()
