"""Code shared by the builders of grey cells: features of an example, reading its files, finding repeated cells."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import pixels, tables
from tfds_builders.owner_files import OwnerFilesBuilder, empty_lists, shorten

NO_LOCATION = -1

_MAX_NAMES = 4  # in a line about repeated cells

KeyedExamples = Iterator[tuple[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell with its files and labels."""

    number: int
    image: pathlib.Path
    mask: pathlib.Path | None
    pattern: str
    intensity: str = tables.UNKNOWN
    specimen_id: str = ""
    """Empty if it is not known."""
    location: int = NO_LOCATION
    split: str = "train"

    @property
    def key(self) -> str:
        """Key of the example; keys sort in the order of the numbers."""
        return f"{self.number:05d}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A cell with its pixels."""

    cell: Cell
    image: np.ndarray
    """uint8 [height, width]."""
    mask: np.ndarray
    """uint8 [height, width]: 255 on the cell; all 0 if there is no mask."""

    @property
    def example(self) -> dict[str, Any]:
        """The values of the features that `features` declares."""
        return {
            "image": pixels.encode_png(self.image),
            "mask": pixels.encode_png(self.mask),
            "pattern": self.cell.pattern,
            "intensity": self.cell.intensity,
            "specimen_id": self.cell.specimen_id,
            "location": self.cell.location,
            "cell_id": self.cell.number,
        }


def features(patterns: Sequence[str] | None, *, channels: int = 1) -> dict[str, Any]:
    """TFDS features of a cell; `patterns` is None if only a build finds them out."""
    return {
        "image": tfds.features.Image(shape=(None, None, channels), dtype=np.uint8, encoding_format="png"),
        "mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
        "pattern": tfds.features.ClassLabel(names=patterns),
        "intensity": tfds.features.ClassLabel(names=tables.INTENSITIES),
        "specimen_id": tfds.features.Text(),
        "location": np.int32,
        "cell_id": np.int32,
    }


def read(cell: Cell) -> Crop:
    """Read the pixels of a cell; raises ValueError, which names the file, if one is damaged or does not fit."""
    image = pixels.read_grey(cell.image)
    mask = pixels.read_mask(cell.mask, image.shape) if cell.mask else np.zeros(image.shape, bool)
    return Crop(cell=cell, image=image, mask=np.where(mask, np.uint8(255), np.uint8(0)))


def repeats(crops: Sequence[Crop]) -> list[tuple[Cell, Cell]]:
    """Pairs of an earlier and a later cell whose images are equal pixel for pixel."""
    first: dict[tuple[Any, bytes], Cell] = {}
    pairs = ((first.setdefault((crop.image.shape, crop.image.tobytes()), crop.cell), crop.cell) for crop in crops)
    return [(earlier, later) for earlier, later in pairs if earlier is not later]


def repeated_specimens(pairs: Sequence[tuple[Cell, Cell]]) -> dict[tuple[str, str], int]:
    """Number of cells that two specimens have in common, by the sorted names of the two."""
    known = (sorted((a.specimen_id, b.specimen_id)) for a, b in pairs if a.specimen_id and b.specimen_id)
    return dict(collections.Counter((first, second) for first, second in known if first != second))


def repeat_notes(pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """A line for each two specimens that share cells, one for other repeated cells, and one for those in two splits."""
    shared = repeated_specimens(pairs)
    notes = [
        f"specimens {first} and {second} share {count} cells pixel for pixel: never put them into different splits"
        for (first, second), count in shared.items()
    ]
    if rest := len(pairs) - sum(shared.values()):
        names = shorten([f"{b.key} = {a.key}" for a, b in pairs], _MAX_NAMES)
        notes.append(f"{rest} cells repeat another one pixel for pixel: {names}")
    if in_two_splits := [(a, b) for a, b in pairs if a.split != b.split]:
        names = shorten([f"{b.key} in {b.split} = {a.key} in {a.split}" for a, b in in_two_splits], _MAX_NAMES)
        notes.append(f"{len(in_two_splits)} repeated cells are in two splits: {names}")
    return notes


def check_specimens(cells: Sequence[Cell], where: object) -> None:
    """Raise ValueError if a specimen has cells of two patterns; it cannot, because it is stained with one serum."""
    first_cells: dict[str, Cell] = {}
    for cell in cells:
        other = first_cells.setdefault(cell.specimen_id, cell)
        if cell.specimen_id and other.pattern != cell.pattern:
            raise ValueError(
                f"{where}: specimen {cell.specimen_id} has cells of two patterns, {other.pattern} ({other.key}) and "
                f"{cell.pattern} ({cell.key}); restore the file from the owner's archive"
            )


def record(builder: OwnerFilesBuilder, *, missing: Sequence[str], notes: Sequence[str], crops: Sequence[Crop]) -> None:
    """Store with the data set what is missing, what its user must know, and which specimens share cells."""
    pairs = repeats(crops)
    builder.report_missing(*missing)
    builder.metadata_lists["notes"] += [*notes, *repeat_notes(pairs)]
    builder.metadata_lists["repeated_specimens"] += [list(names) for names in repeated_specimens(pairs)]


def empty_metadata() -> tfds.core.MetadataDict:
    """Empty lists, which `record` fills."""
    return empty_lists("missing", "notes", "repeated_specimens")
