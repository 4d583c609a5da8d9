"""The images that a user names: found, decoded ahead of the network by a thread, and grouped for it."""

import collections
import contextlib
import dataclasses
import glob
import os
import pathlib
import threading
from collections.abc import Generator, Iterator, Sequence

import numpy as np

from hep2jax import background
from hep2jax.config import Config
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.progress import warn
from hep2jax.tasks import Reader
from hep2jax.tasks.reading import in_groups
from tfds_builders import image_files
from tfds_builders.frames import ImageFileError

TABLES = ("predictions.csv", "predictions.jsonl", "cells.csv", "specimens.csv", "index.html")
_OWN_ENDINGS = ("_classes.png", "_overlay.png", "_cells.png")
_ZARR = ".zarr"
_SUFFIXES = (*image_files.SUFFIXES, _ZARR)
_PIXELS_AHEAD = 16_000_000  # bounds the memory


def find_images(pattern: str, output: pathlib.Path | None = None) -> list[str]:
    """The images that a pattern names, sorted, without masks of cells and without what this program has written.

    A folder stands for the files in it whose names end like those of images; a file is itself, whatever its name.
    A folder whose name ends in .zarr is an image, and nothing in it is, except folders of Zarr groups that a pattern
    names with that folder, such as `plate.zarr/*/*/*`. Files in the folder `output` are left out, unless the pattern
    starts in that folder.
    """
    if pathlib.Path(pattern).is_dir() and not _is_or_is_in_zarr(pathlib.Path(pattern)):
        named = (path for path in pathlib.Path(pattern).iterdir() if path.suffix.lower() in _SUFFIXES)
        found, start = map(str, named), pathlib.Path(pattern)
    else:
        found = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        start = next((p for p in pathlib.Path(pattern).parents if not glob.has_magic(str(p))), pathlib.Path())
    inside = output.resolve() if output and start.resolve() != output.resolve() else None
    groups = any(parent.suffix.lower() == _ZARR for parent in pathlib.Path(pattern).parents)
    images = [p for p in found if _is_image(pathlib.Path(p), groups) and not _is_mask(p) and not _is_own(p)]
    return sorted(path for path in images if inside not in pathlib.Path(path).resolve().parents)


def _is_or_is_in_zarr(path: pathlib.Path) -> bool:
    return any(part.suffix.lower() == _ZARR for part in (path, *path.parents))


def _is_image(path: pathlib.Path, groups: bool) -> bool:
    """Whether a path is a file or a Zarr folder that may be an image; `groups`: also a group in a Zarr folder."""
    if not _is_or_is_in_zarr(path.parent):
        return path.is_file() or (path.suffix.lower() == _ZARR and path.is_dir())
    return groups and any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json"))


def _is_mask(path: str) -> bool:
    return pathlib.Path(path).stem.lower().endswith("_mask")


def _is_own(path: str) -> bool:
    if path.endswith("_cells.png"):  # a name that images may have as well; what we wrote stands beside the classes
        return pathlib.Path(f"{path.removesuffix('_cells.png')}_classes.png").is_file()
    return path.endswith(_OWN_ENDINGS) or pathlib.Path(path).name in TABLES


def output_names(paths: Sequence[str]) -> list[str]:
    """For each image the start of the names of its output files: its name without the ending.

    Images that share a stem keep the ending of their name and their folder below the folder that all images share.
    """
    stems = [pathlib.Path(path).stem for path in paths]
    count = collections.Counter(stem.casefold() for stem in stems)
    absolute = [pathlib.Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in absolute]) if paths else ""
    return [
        stem if count[stem.casefold()] == 1 else str(path.relative_to(common))
        for stem, path in zip(stems, absolute, strict=True)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """One frame of a file, ready for the reader."""

    path: str
    page: int
    num_pages: int
    """Number of pages of the file."""
    name: str
    """Start of the names of its output files, relative to the output folder."""
    file: int
    """Number of files before this one."""
    specimen: str | None
    pixels: np.ndarray
    mask: np.ndarray | None
    """The mask of the cell, bool; None if the reader takes no masks."""


def load(
    paths: Sequence[str], specimens: Sequence[str | None], reader: Reader, refused: list[str]
) -> Generator[Image, None, None]:
    """The images, one after another; files that cannot be read are named on stderr and added to `refused`."""
    taken: set[str] = set()
    for number, (path, name) in enumerate(zip(paths, output_names(paths), strict=True)):
        try:
            for frame in image_files.read(pathlib.Path(path)):
                pixels = field_sets.select_channel(frame.pixels_8_bit, reader.config.data.channel)
                mask = _mask_beside(pathlib.Path(path), pixels.shape, reader.config) if reader.takes_masks else None
                paged = name if frame.num_pages == 1 else f"{name}_page{frame.page:03d}"
                yield Image(
                    path=path,
                    page=frame.page,
                    num_pages=frame.num_pages,
                    name=untaken(paged, taken),
                    file=number,
                    specimen=specimens[number],
                    pixels=pixels,
                    mask=mask,
                )
        except ImageFileError as error:
            warn(str(error))
            refused.append(path)


def untaken(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken already, for example by a page of another file."""
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique.casefold())
    return unique


def _mask_beside(image: pathlib.Path, shape: tuple[int, ...], config: Config) -> np.ndarray:
    """The cell's mask, bool [h, w]; all false if there is no mask file and the network needs none.

    Raises:
        ImageFileError: the file cannot be read, has another size than the image, or is missing where one is needed.
    """
    for path in (image.with_name(f"{image.stem}{ending}.png") for ending in ("_mask", "_Mask")):
        if path.is_file():
            try:
                pixels = field_sets.select_channel(image_files.read_first(path).pixels_8_bit, "grey")
            except ImageFileError as error:
                raise ImageFileError(f"{error}; {image.name} is left out") from error
            if pixels.shape != shape:
                raise ImageFileError(f"{path}: has another size than {image.name}")
            return pixels > 127
    if cell_sets.needs_mask(config.data):
        raise ImageFileError(f"{image}: has no {image.stem}_mask.png beside it, which this network needs")
    return np.zeros(shape, bool)


class _Ahead:
    """Images that a thread decodes ahead, up to `_PIXELS_AHEAD` pixels, or one image that is larger."""

    def __init__(self, images: Iterator[Image]) -> None:
        self._images, self._waiting, self._pixels = images, collections.deque[Image | None](), 0
        self._changed, self._closed = threading.Condition(), False
        self._error: BaseException | None = None
        threading.Thread(target=self._decode, daemon=True).start()

    def _decode(self) -> None:
        background.step_back()
        try:
            for image in self._images:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._pixels < _PIXELS_AHEAD)
                    if self._closed:
                        return
                    self._put(image, image.pixels.size)
        except BaseException as error:  # raised again where the images are taken
            self._error = error
        with self._changed:
            self._put(None, 0)

    def _put(self, image: Image | None, pixels: int) -> None:
        self._waiting.append(image)
        self._pixels += pixels
        self._changed.notify_all()

    def __iter__(self) -> Iterator[Image]:
        while (image := self._take()) is not None:
            yield image
        if self._error is not None:
            raise self._error

    def _take(self) -> Image | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            image = self._waiting.popleft()
            self._pixels -= image.pixels.size if image else 0
            self._changed.notify_all()
            return image

    def close(self) -> None:
        """End the thread after the image that it is decoding."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def groups(images: Iterator[Image]) -> Generator[list[Image], None, None]:
    """Lists of successive images, made while others are decoded."""
    with contextlib.closing(_Ahead(images)) as ahead:
        yield from in_groups(ahead, lambda image: image.pixels.size)
