"""What a prediction writes: tables, masks, overlays and the page. Tables grow in unfinished files until all is read."""

import collections
import concurrent.futures
import contextlib
import csv
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from hep2jax import background, files
from hep2jax.errors import UsageError
from hep2jax.prediction import png
from hep2jax.prediction.inputs import TABLES, Image
from hep2jax.progress import warn
from hep2jax.report import palette
from hep2jax.report.markup import element, join
from hep2jax.report.overlays import stretch_contrast
from hep2jax.report.readings import ReadingRow, ReadingsPage
from hep2jax.tasks import Reader, Reading
from hep2jax.tasks.reading import DECIMALS

PREDICTIONS, RECORDS, CELLS, SPECIMENS, PAGE = TABLES
_CELL_COLUMNS = ("image", "page", "cell", "y", "x", "area", "top", "left", "bottom", "right", "pattern", "probability")
_MAX_LABEL = np.iinfo(np.uint16).max
_MAX_INDEX = 255
_WAITING_PIXELS = 4_000_000  # of pictures, each with the arrays that it is drawn from


class Drawing(NamedTuple):
    """A picture of few colours."""

    pixels: UInt8[np.ndarray, "height width"]
    """Each an index into the palette."""
    palette: UInt8[np.ndarray, "256 3"]
    """RGB."""

    def bgr(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture in the order of OpenCV."""
        return cv2.applyColorMap(self.pixels, self.palette[:, None, ::-1])


@contextlib.contextmanager
def errors_of(output: pathlib.Path) -> Iterator[None]:
    """Errors of files in this block leave it as UsageError that names the option, except those of a full disk."""
    try:
        yield
    except OSError as error:
        if files.is_disk_full(error):
            raise
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def folder(output: pathlib.Path) -> Iterator[None]:
    """Create the folder, or check that it can be written to and remove old tables; a new one goes if it stays empty."""
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass
    for name in TABLES:
        (output / name).unlink(missing_ok=True)
    try:
        yield
    finally:
        if created and not any(output.iterdir()):
            output.rmdir()


class _Table:
    """A CSV file that begins with the first row, or with its columns where these are given."""

    def __init__(self, path: pathlib.Path, columns: Sequence[str] = ()) -> None:
        # Names of files may hold bytes that are no text, which `surrogateescape` writes as they are.
        self._file = path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer: csv.DictWriter | None = None
        if columns:
            self._begin(columns)

    def _begin(self, columns: Sequence[str]) -> csv.DictWriter:
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()
        return self._writer

    def write(self, row: dict[str, Any]) -> None:
        (self._writer or self._begin(list(row))).writerow(row)

    def close(self) -> None:
        self._file.close()


class _Pictures:
    """Draws and writes PNG files in a thread, while the network reads on; at most `_WAITING_PIXELS` wait for it."""

    def __init__(self) -> None:
        self._thread = background.thread()
        self._waiting = collections.deque[tuple[concurrent.futures.Future[None], int]]()
        self._pixels = 0

    def add(self, path: pathlib.Path, draw: Callable[[], np.ndarray | Drawing], num_pixels: int) -> None:
        """Draw and write the picture soon; errors of earlier ones are raised here."""
        while self._waiting and self._pixels + num_pixels > _WAITING_PIXELS:
            self._finish_first()
        self._waiting.append((self._thread.submit(_draw, path, draw), num_pixels))
        self._pixels += num_pixels

    def _finish_first(self) -> None:
        written, size = self._waiting.popleft()
        self._pixels -= size
        written.result()

    def close(self) -> None:
        """Wait until all are written, or raise the error of the first that cannot be."""
        try:
            while self._waiting:
                self._finish_first()
        finally:
            self._thread.shutdown(cancel_futures=True)


class Outputs:
    """The files of one prediction in a folder."""

    def __init__(self, output: pathlib.Path, reader: Reader) -> None:
        self._folder, self._reader = output, reader
        self._page = ReadingsPage(reader.classes, one_pattern=reader.has_one_pattern)
        self.num_images = 0
        """Number of images that were added."""
        self.verdicts = collections.Counter[str]()
        """Number of images with each verdict."""

    @contextlib.contextmanager
    def tables(self, *, of_specimens: bool) -> Iterator[None]:
        """Open the tables; they take their names when the block ends without an error."""
        with contextlib.ExitStack() as stack:

            def unfinished(name: str) -> pathlib.Path:
                return stack.enter_context(files.replaced(self._folder / name))

            def table(name: str, columns: Sequence[str] = ()) -> _Table:
                return stack.enter_context(contextlib.closing(_Table(unfinished(name), columns)))

            self._predictions = table(PREDICTIONS)
            self._records = stack.enter_context(unfinished(RECORDS).open("w", encoding="ascii"))
            self._cells = table(CELLS, _CELL_COLUMNS) if self._reader.finds_cells else None
            self._specimens = table(SPECIMENS) if of_specimens else None
            self._pictures = stack.enter_context(contextlib.closing(_Pictures()))
            page = unfinished(PAGE)
            yield
            page.write_text(self._page.render("Readings", self._facts()), encoding="utf-8")

    def _facts(self) -> dict[str, Any]:
        present = {CELLS: self._cells, SPECIMENS: self._specimens}
        names = [name for name in TABLES if name != PAGE and present.get(name, self) is not None]
        links = join(part for name in names for part in (element("a", name, href=name), " "))
        return {"Network": self._reader.config.model.name, "Images": self.num_images, "Tables": links}

    def add(self, image: Image, reading: Reading) -> None:
        """Write what was read of an image: its masks and its rows."""
        self.num_images += 1
        self.verdicts[reading.verdict] += 1
        row, bits = self._reader.row(reading), entropy(reading, self._reader)
        self._predictions.write({"image": image.path, "page": image.page, **row, "entropy": bits})
        json.dump(record(image, reading, bits), self._records)
        self._records.write("\n")
        self._write_cells(image, reading)
        # Drawn once, by the page or in the thread that writes.
        overlays = [functools.cache(functools.partial(overlay, image.pixels, mask)) for mask in reading.class_masks]
        picture = (overlays[0]().bgr() if overlays else image.pixels) if self._page.wants_picture else None
        self._write_masks(image, reading, overlays)
        self._page.add(self._page_row(image, reading, bits), picture)

    def _write_cells(self, image: Image, reading: Reading) -> None:
        for cell in (cell for cells in reading.cells for cell in cells):
            assert self._cells is not None
            y, x = (round(value, 2) for value in cell.centre)
            place = (image.path, image.page, cell.label, y, x, cell.area, *cell.box)
            values = (*place, cell.pattern, round(cell.probability, DECIMALS))
            self._cells.write(dict(zip(_CELL_COLUMNS, values, strict=True)))

    def _write_masks(self, image: Image, reading: Reading, overlays: Sequence[Callable[[], Drawing]]) -> None:
        """Write the masks of an image and its overlay, if there are any."""
        for classes, labels, drawn in zip(reading.class_masks, reading.cell_labels, overlays, strict=True):
            pictures = {"classes": functools.partial(np.asarray, classes), "overlay": drawn}
            if labels.max(initial=0) > _MAX_LABEL:
                warn(f"{image.path}: has more than {_MAX_LABEL} cells, too many for a mask of 16 bits")
            else:
                pictures["cells"] = functools.partial(labels.astype, np.uint16)
            for ending, draw in pictures.items():
                self._pictures.add(self._folder / f"{image.name}_{ending}.png", draw, classes.size)

    def _page_row(self, image: Image, reading: Reading, bits: float | None) -> ReadingRow:
        endings = ("overlay", "classes", "cells") if reading.class_masks else ()
        return ReadingRow(
            name=image.path,
            note=f"page {image.page}" if image.num_pages > 1 else "",
            patterns=reading.patterns,
            probabilities=reading.probabilities,
            facts=self._page_facts(reading, bits),
            files={ending: f"{image.name}_{ending}.png" for ending in endings},
        )

    def _page_facts(self, reading: Reading, bits: float | None) -> dict[str, Any]:
        shown: dict[str, Any] = {"cells": reading.num_cells} if self._reader.finds_cells else {}
        shown |= {"intensity": reading.intensity} if reading.intensity else {}
        shown |= {"entropy (bits)": bits} if self._reader.has_one_pattern else {}
        return shown | ({} if reading.confidence is None else reading.judgement)

    def add_specimen(self, name: str, num_fields: int, reading: Reading) -> None:
        """Write what was read of a specimen from all its fields."""
        assert self._specimens is not None
        row, bits = self._reader.row(reading), entropy(reading, self._reader)
        self._specimens.write({"specimen": name, "fields": num_fields, **row, "entropy": bits})
        self._page.add_specimen(
            ReadingRow(
                name=name,
                patterns=reading.patterns,
                probabilities=reading.probabilities,
                facts={"fields": num_fields, **self._page_facts(reading, bits)},
            )
        )


def entropy(reading: Reading, reader: Reader) -> float | None:
    """The entropy of the probabilities in bits; None if no cell was found, or an image may have several patterns."""
    values = np.array(list(reading.probabilities.values()))
    positive = values[values > 0]
    if not reader.has_one_pattern or not reading.patterns:
        return None
    return round(float(-(positive * np.log2(positive)).sum()) + 0.0, DECIMALS)


def record(image: Image, reading: Reading, bits: float | None) -> dict[str, Any]:
    """The line of `predictions.jsonl`."""
    shares = reading.rounded
    return {
        "image": image.path,
        "page": image.page,
        "specimen": image.specimen,
        "pattern": reading.pattern,
        "patterns": list(reading.patterns),
        "icap": list(reading.icap),
        "probability": shares[reading.patterns[0]] if reading.patterns else None,
        "entropy": bits,
        "intensity": reading.intensity or None,
        "num_cells": reading.num_cells if reading.class_masks else None,
        "confidence": reading.confidence,
        "novelty": reading.novelty,
        "verdict": reading.verdict,
        "shares": shares,
    }


def overlay(image: UInt8[np.ndarray, "height width"], mask: UInt8[np.ndarray, "height width"]) -> Drawing:
    """Draw the outline of each predicted region, in the colour of its pattern, on the contrast-stretched image.

    Args:
        image: the channel that was read.
        mask: 0 background, 1+i pattern i.
    """
    num_colours = min(int(mask.max(initial=0)), palette.NUM_DISTINCT)
    last_grey = _MAX_INDEX - num_colours
    grey = cv2.LUT(stretch_contrast(image), np.round(np.linspace(0, last_grey, 256)).astype(np.uint8))
    inside = (mask > 0).view(np.uint8)
    outline = np.flatnonzero(
        inside != cv2.erode(inside, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    )
    pattern = (mask.ravel()[outline].astype(np.int64) - 1) % palette.NUM_DISTINCT
    grey.reshape(-1)[outline] = last_grey + 1 + pattern
    return Drawing(grey, _colours(num_colours))


@functools.cache
def _colours(number: int) -> UInt8[np.ndarray, "256 3"]:
    """Grey levels from black to white, then the colours of the first patterns."""
    greys = np.round(np.linspace(0, 255, 256 - number)).astype(np.uint8)
    patterns = np.array([palette.rgb(palette.pattern_colour(i)) for i in range(number)], np.uint8).reshape(-1, 3)
    return np.concatenate([np.repeat(greys[:, None], 3, axis=1), patterns])


def _draw(path: pathlib.Path, draw: Callable[[], np.ndarray | Drawing]) -> None:
    """Write a picture as a PNG file."""
    drawn = draw()
    encoded = png.encode(*drawn) if isinstance(drawn, Drawing) else png.encode(drawn)
    with files.replaced(path) as unfinished:
        unfinished.write_bytes(encoded)
