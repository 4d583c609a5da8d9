"""The images that lie open on the page, in memory: decoded, read by one thread, and bounded in number and size."""

import base64
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import RunError, UsageError
from hep2jax.report.overlays import stretch_contrast
from hep2jax.specimens.nuclear_size import Scales
from hep2jax.tasks import Input, Reader, Reading
from hep2jax.view import training_cells
from hep2jax.view.training_cells import TrainingCells
from tfds_builders import image_files
from tfds_builders.frames import Frame, ImageFileError

MAX_IMAGES, MAX_PIXELS = 500, 150_000_000
"""Of all images together; a pixel takes up to six bytes."""
MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE = 40_000_000, 16_000
"""Of one image: what browsers can draw."""
MAX_PAGES, MAX_FILE_PIXELS = 64, 80_000_000
"""Of one file."""
NOT_A_CELL = -1
"""The correction of an object that is no cell; other corrections are indices of patterns."""
NEAREST = 6
"""Number of training cells that are shown beside a cell."""
_THUMBNAIL = 112
_MARGIN, _LEAST_SIDE = 0.15, 8
"""Surroundings of a cell that is cut out, as a share of its longer side; smallest side of what is cut, in pixels."""


class DeskError(Exception):
    """An image that cannot be taken; the message is one line without paths."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Entry:
    """One image with its reading."""

    key: str
    """Names the image in addresses."""
    file: int
    """Number of the file that it came from; the pages of one file share it."""
    name: str
    """Name of the file, without folders."""
    page: int
    num_pages: int
    pixels: np.ndarray
    """uint8 [height, width], what the network reads."""
    mask: np.ndarray | None
    """The mask of the cell that came with the image of one cell, bool."""
    reading: Reading
    unit: str
    """What is named and corrected: the `cell` of a field, or the `image` as a whole."""
    cells: list[dict[str, Any]]
    """For the page, see `_cells_of`."""
    corrections: dict[int, int] = dataclasses.field(default_factory=dict)
    """Pattern, or `NOT_A_CELL`, by the label of the cell."""

    @property
    def labels(self) -> np.ndarray:
        """The label map of the cells, int32 [height, width]; an image that is read as a whole has the label 1."""
        if self.reading.cell_labels:
            return self.reading.cell_labels[0]
        return np.ones(self.pixels.shape, np.int32) if self.mask is None else self.mask.astype(np.int32)

    def cut_out(self, cell: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The pixels and the mask of a cell, with a margin."""
        box = _widened(cell["box"], self.pixels.shape)
        return self.pixels[box], self.labels[box] == cell["label"]

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """What the page is told, without the corrections."""
        height, width = self.pixels.shape
        return {
            "key": self.key,
            "name": self.name if self.num_pages == 1 else f"{self.name}, page {self.page}",
            "width": width,
            "height": height,
            "unit": self.unit,
            "has_mask": bool(self.reading.class_masks),
            "pattern": self.reading.pattern,
            "icap": self.reading.icap_in_words,
            "intensity": self.reading.intensity,
            **self.reading.judgement,
            "probabilities": list(self.reading.rounded.values()),
            "cells": self.cells,
            "thumbnail": png_uri(_thumbnail(self.pixels)),
        }


@dataclasses.dataclass(kw_only=True, eq=False)
class _Job:
    """An image that waits for the network."""

    pixels: np.ndarray
    mask: np.ndarray | None
    name: str
    done: concurrent.futures.Future[Reading] = dataclasses.field(default_factory=concurrent.futures.Future)


class Desk:
    """Takes image files, has them read, and keeps them until they are removed or others need their place."""

    def __init__(self, reader: Reader, scales: Scales, workdir: str | os.PathLike[str]) -> None:
        """Make an empty one; `scales` decides how images are resized, `workdir` is that of the reader's run."""
        self.reader, self._scales, self._workdir = reader, scales, workdir
        self.notes: list[str] = []
        """What a user should know of the images, one line each."""
        self.expected = 0
        """Number of images with which the command was started and that are not read yet."""
        self._lock, self._decoding = threading.Lock(), threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._waiting: list[_Job] = []
        self._numbers = itertools.count(1)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "reading")
        self._training = concurrent.futures.ThreadPoolExecutor(1, "training cells")

    @property
    def entries(self) -> list[Entry]:
        """All images, the oldest first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: int(entry.key.split("-")[0]))

    def get(self, key: str) -> Entry | None:
        """The image of this key, which counts as used now."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def remove(self, key: str) -> None:
        """Forget an image."""
        with self._lock:
            self._entries.pop(key, None)

    def correct(self, entry: Entry, corrections: Mapping[int, int]) -> None:
        """Replace the corrections of an image; raises DeskError for cells and patterns that do not exist."""
        known = {cell["label"] for cell in entry.cells}
        patterns = range(NOT_A_CELL, len(self.reader.classes))
        if not (set(corrections) <= known and set(corrections.values()) <= set(patterns)):
            raise DeskError("a correction of a cell or to a pattern that there is not")
        entry.corrections = dict(corrections)

    def add(self, path: pathlib.Path, name: str, mask: pathlib.Path | None = None) -> list[Entry]:
        """Read every page of an image file; this waits until the network has read it.

        Args:
            path: where the file is.
            name: what it is called.
            mask: the mask of the cell, for a network of cells.

        Raises:
            DeskError: the file, or its mask, cannot be read as an image, is too large, or all places are taken by
                images with corrections.
        """
        try:
            with self._decoding:  # one file at a time, to bound the memory
                pages = self._decode(path, name, mask)
        except ImageFileError as error:
            text = str(error).replace(str(mask), f"the mask of {name}") if mask else str(error)
            raise DeskError(text.replace(str(path), name)) from error
        self._read([job for _, job in pages])
        file = next(self._numbers)
        return [self._enter(file, name, frame, job) for frame, job in pages]

    def _decode(self, path: pathlib.Path, name: str, mask: pathlib.Path | None) -> list[tuple[Frame, _Job]]:
        """Every page of a file with its job for the network."""
        if mask is None and self.reader.takes_masks and cell_sets.needs_mask(self.reader.config.data):
            raise ImageFileError(f"{path}: this network needs the mask of its cell, a file of that name and _mask")
        found, room = [], MAX_FILE_PIXELS
        for frame in image_files.read(path):
            height, width = frame.pixels.shape[:2]
            room -= height * width
            if height * width > MAX_IMAGE_PIXELS or max(height, width) > MAX_IMAGE_SIDE:
                raise ImageFileError(f"{path}: {width} x {height} pixels are more than this page draws")
            if len(found) == MAX_PAGES or room < 0:
                raise ImageFileError(f"{path}: has more pages than this page takes; hep2jax predict reads them all")
            pixels = field_sets.select_channel(frame.pixels_8_bit, self.reader.config.data.channel)
            frame = dataclasses.replace(frame, pixels=pixels)
            found.append((frame, _Job(pixels=pixels, mask=_mask(mask, pixels.shape), name=name)))
        return found

    def _read(self, jobs: Sequence[_Job]) -> None:
        with self._lock:
            self._waiting += jobs
        self._thread.submit(self._read_waiting)
        for job in jobs:
            job.done.result()

    def _read_waiting(self) -> None:
        """Read all images that wait, in full batches; if that fails, one by one, so that each has its own error."""
        with self._lock:
            jobs, self._waiting = self._waiting, []
        try:
            for job, reading in zip(jobs, self._readings(jobs), strict=True):
                job.done.set_result(reading)
        except Exception:
            for job in (job for job in jobs if not job.done.done()):
                try:
                    job.done.set_result(self._readings([job])[0])
                except Exception as error:  # it belongs to the request that waits for it
                    job.done.set_exception(DeskError(" ".join(str(error).split())[:300]))

    def _readings(self, jobs: Sequence[_Job]) -> list[Reading]:
        if not jobs:
            return []
        inputs = [Input(job.pixels, job.name, job.mask if self.reader.takes_masks else None) for job in jobs]
        readings = [reading for reading, _ in self.reader.stream(inputs, self._scales)]
        self.notes += self._scales.messages()
        return readings

    def _enter(self, file: int, name: str, frame: Frame, job: _Job) -> Entry:
        reading, classes = job.done.result(), self.reader.classes
        found = bool(reading.cell_labels)
        entry = Entry(
            key="",
            file=file,
            name=name,
            page=frame.page,
            num_pages=frame.num_pages,
            pixels=job.pixels,
            mask=job.mask,
            reading=reading,
            unit="cell" if found else "image",
            cells=_cells_of(reading, classes) if found else [_whole(job.pixels, reading, classes)],
        )
        with self._lock:
            self._make_room(entry.pixels.size)
            entry.key = f"{next(self._numbers)}-{secrets.token_hex(4)}"
            self._entries[entry.key] = entry
        return entry

    def _make_room(self, size: int) -> None:
        """Drop the images that were used least recently; those with corrections stay, because these are work."""
        while self._entries and (
            len(self._entries) >= MAX_IMAGES
            or sum(entry.pixels.size for entry in self._entries.values()) + size > MAX_PIXELS
        ):
            oldest = next((key for key, entry in self._entries.items() if not entry.corrections), None)
            if oldest is None:
                raise DeskError("the page is full of images with corrections: download these, then remove images")
            del self._entries[oldest]

    @functools.cached_property
    def training_cells(self) -> "concurrent.futures.Future[TrainingCells]":
        """The training cells, which a thread begins to measure when they are first asked for."""
        return self._training.submit(training_cells.load, self._workdir, self.reader.config, self.reader.classes)

    def nearest(self, entry: Entry, label: int) -> list[dict[str, Any]]:
        """The nearest training cells of a cell, once `training_cells` is done: pattern, specimen, distance, picture.

        Raises:
            DeskError: there is no such cell, no mask of it, or there are no training cells to compare it with.
        """
        cell = next((cell for cell in entry.cells if cell["label"] == label), None)
        if cell is None or (entry.unit == "image" and entry.mask is None):
            raise DeskError("only cells with a mask are compared with training cells")
        try:
            found = self.training_cells.result().nearest(*entry.cut_out(cell), NEAREST)
        except (UsageError, RunError) as error:
            raise DeskError(f"no training cells to compare with: {error}") from error
        return [
            {
                "pattern": cell.pattern,
                "specimen": cell.specimen,
                "distance": round(distance, 3),
                "picture": png_uri(stretch_contrast(cell.image)),
            }
            for distance, cell in found
        ]

    def close(self) -> None:
        """Let the threads end after what they do now."""
        for thread in (self._thread, self._training):
            thread.shutdown(wait=False, cancel_futures=True)


def _mask(path: pathlib.Path | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if path is None:
        return None
    pixels = field_sets.select_channel(image_files.read_first(path).pixels_8_bit, "grey")
    if pixels.shape != shape:
        raise ImageFileError(f"{path}: has another size than the image")
    return pixels > 127


def _cells_of(reading: Reading, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each cell its label, centre (x, y), box, area, pattern, the shares of all patterns, and its outline."""
    labels, mask = reading.cell_labels[0], reading.class_masks[0]
    votes = np.zeros((int(labels.max(initial=0)) + 1, len(classes) + 1), np.int64)
    np.add.at(votes, (labels, mask), 1)
    shares = votes[:, 1:] / np.maximum(votes[:, 1:].sum(axis=1, keepdims=True), 1)
    return [
        {
            "label": cell.label,
            "centre": [round(value, 1) for value in cell.centre[::-1]],
            "box": list(cell.box),
            "area": cell.area,
            "pattern": classes.index(cell.pattern),
            "shares": _shares(shares[cell.label], classes.index(cell.pattern), cell.probability),
            "outline": _outline(labels, cell.label, cell.box),
        }
        for cell in reading.cells[0]
    ]


def _shares(shares: np.ndarray, winner: int, probability: float) -> list[float | None]:
    """The shares of a cell's pixels; where the network did not vote by pixels, only the probability that is known."""
    if abs(shares[winner] - probability) < 1e-6:
        return [round(float(share), 4) for share in shares]
    return [round(probability, 4) if index == winner else None for index in range(len(shares))]


def _outline(labels: np.ndarray, label: int, box: tuple[int, int, int, int]) -> list[int]:
    """The outer contour of a cell as x, y, x, y, … of pixels."""
    top, left, bottom, right = box
    inside = (labels[top:bottom, left:right] == label).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    if not contours:  # a cell of a pixel or two in an image that was read at a larger size
        return [left, top, right - 1, top, right - 1, bottom - 1, left, bottom - 1]
    return cv2.approxPolyDP(max(contours, key=len), 0.7, True).astype(int).ravel().tolist()


def _widened(box: Sequence[int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A box (top, left, bottom, right) with its margin, within the image."""
    top, left, bottom, right = box
    sides = bottom - top, right - left
    margin = max(round(_MARGIN * max(sides)), _LEAST_SIDE - min(sides), 0)
    rows = slice(max(0, top - margin), min(shape[0], bottom + margin))
    return rows, slice(max(0, left - margin), min(shape[1], right + margin))


def _whole(pixels: np.ndarray, reading: Reading, classes: Sequence[str]) -> dict[str, Any]:
    """An image that is read as a whole, in the form of a cell."""
    height, width = pixels.shape
    return {
        "label": 1,
        "centre": [width / 2, height / 2],
        "box": [0, 0, height, width],
        "area": pixels.size,
        "pattern": classes.index(reading.patterns[0]) if reading.patterns else NOT_A_CELL,
        "shares": list(reading.rounded.values()),
        "outline": [0, 0, width - 1, 0, width - 1, height - 1, 0, height - 1],
    }


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    factor = min(1.0, _THUMBNAIL / max(pixels.shape))
    size = [max(1, round(length * factor)) for length in pixels.shape[::-1]]
    return stretch_contrast(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def png(pixels: np.ndarray) -> bytes:
    """The pixels as a PNG file."""
    return cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 2))[1].tobytes()


def png_uri(pixels: np.ndarray) -> str:
    """The pixels as the address of a PNG image that it holds itself."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
