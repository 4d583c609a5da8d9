"""The directory tree from which SNPHEp-2 is read.

We have seen neither the archive nor a description of its files. Therefore an index names the files, and whoever has the
archive writes this index if the archive does not contain one:

* one `.csv` with a header that names at least the columns image, class and specimen, and optionally mask, intensity and
  cell_id (for other names see `_COLUMNS`); paths of files are relative to the folder of that table;
* the five published folds, which are random halves of the specimens, as one `.csv` with the header
  `fold,specimen,side`, or as folders `fold1` … `fold5` with `train.csv` and `test.csv`, one specimen in each line.

All of these are in the given directory or one folder below. This module decodes no pixels.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

from tfds_builders import cells, tables

HOME_PAGE = "http://staff.itee.uq.edu.au/lovell/snphep2"
PATTERNS = ("centromere", "coarse_speckled", "fine_speckled", "homogeneous", "nucleolar")
PUBLISHED_CELLS = 1884
PUBLISHED_SPECIMENS = 40
NUM_FOLDS = 5
TRAIN, TEST, NOT_GIVEN = 0, 1, -1
"""The splits of a fold."""
SPELLINGS = tables.spellings_of(PATTERNS, {"centromeric": "centromere"})

_COLUMNS = {
    "image": ("image", "image file", "file", "filename"),
    "pattern": ("class", "pattern", "label", "image class"),
    "specimen": ("specimen", "specimen id"),
    "mask": ("mask", "mask file"),
    "intensity": ("intensity",),
    "number": ("cell id", "id", "image id"),
}
_NEEDED = ("image", "pattern", "specimen")
_FOLD_COLUMNS = ("fold", "specimen", "side")
_SPLITS = tables.spellings_of(("train", "test"), {"training": "train", "testing": "test"})
_FOLD_FOLDER = re.compile(r"fold[ _-]?(\d+)", re.IGNORECASE)
_IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

Splits = dict[tuple[int, str], int]
"""Split of a specimen in a fold, by the number of the fold and the specimen's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """The tables of one copy of the data set."""

    index: pathlib.Path
    folds: tuple[pathlib.Path, ...]
    """One table of all folds, or two tables for each fold; empty if there are none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Cells by number, their splits in the folds, and lines on what is missing."""

    cells: tuple[cells.Cell, ...]
    splits: Splits
    missing: list[str]


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was expected there, and how to obtain it."""
    return (
        f"snphep2: no index of cells found in '{manual_dir}' or one folder below: expected a .csv with the columns "
        "image, class, specimen (and mask, intensity, cell_id where known), and fold,specimen,side in another one; "
        f"ask the owners for the archive ({HOME_PAGE}), unpack it, write the index if it has none, and name the "
        "directory that holds it"
    )


def find_tree(manual_dir: pathlib.Path) -> Tree:
    """The tables of the data set.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: there are two indices or two lists of the folds.
    """
    if not manual_dir.is_dir():
        raise FileNotFoundError(absence(manual_dir))
    folders = [manual_dir, *sorted(path for path in manual_dir.iterdir() if path.is_dir())]
    headers = {path: tables.read_header(path) for folder in folders for path in _csv_files(folder)}
    indices = [path for path, names in headers.items() if all(_column(names, name) is not None for name in _NEEDED)]
    lists = [(path,) for path, names in headers.items() if all(name in names for name in _FOLD_COLUMNS)]
    lists += [files for folder in folders if (files := _fold_files(folder))]
    if not indices:
        raise FileNotFoundError(absence(manual_dir))
    _check_one([str(path) for path in indices], "indices of cells")
    _check_one([str(files[0]) for files in lists], "lists of the folds")
    return Tree(index=indices[0], folds=lists[0] if lists else ())


def read_contents(tree: Tree) -> Contents:
    """The existing cells with their labels and splits; ValueError names the file and the line of a wrong entry."""
    listed = read_index(tree.index)
    with_image = sorted((cell for cell in listed if cell.image.is_file()), key=lambda cell: cell.number)
    present = tuple(
        dataclasses.replace(cell, mask=cell.mask if cell.mask and cell.mask.is_file() else None) for cell in with_image
    )
    cells.check_specimens(listed, tree.index)
    splits = read_splits(tree.folds)
    missing = [*_missing_cells(tree, listed, present), *_missing_splits(present, splits)]
    return Contents(cells=present, splits=splits, missing=missing)


def source_files(tree: Tree) -> Iterator[pathlib.Path]:
    """Every file that a build would read."""
    yield from (tree.index, *tree.folds)
    for cell in read_contents(tree).cells:
        yield from (path for path in (cell.image, cell.mask) if path)


def read_index(index: pathlib.Path) -> list[cells.Cell]:
    """A cell for each row of the index, whether or not its files exist.

    The numbers of cells are those in the column cell_id; without this column, the rows are numbered from 1.
    """
    rows = tables.read_rows(index)
    names = tables.header(rows)
    columns = {name: column for name in _COLUMNS if (column := _column(names, name)) is not None}
    listed: list[cells.Cell] = []
    for order, (line, row) in enumerate(rows[1:], start=1):
        entries = {name: row[column] for name, column in columns.items()}
        listed.append(_cell(entries, order, index.parent, f"{index}, line {line}"))
    for what, values in (("image", [cell.image for cell in listed]), ("cell_id", [cell.number for cell in listed])):
        repeated = [value for value, count in collections.Counter(values).items() if count > 1]
        if repeated:
            raise ValueError(f"{index}: the {what} {repeated[0]} is listed twice; correct the index")
    return listed


def read_splits(files: Sequence[pathlib.Path]) -> Splits:
    """Splits of specimens from one table of all folds, or from `foldK/train.csv` and `foldK/test.csv`."""
    splits: Splits = {}
    for path in files:
        for where, fold, specimen, side in _split_rows(path):
            if not 1 <= fold <= NUM_FOLDS:
                raise ValueError(f"{where}: there is no fold {fold}; the {NUM_FOLDS} published folds are 1 to 5")
            if (fold, specimen) in splits:
                raise ValueError(f"{where}: specimen {specimen} is listed twice in fold {fold}; remove one of the rows")
            splits[fold, specimen] = side
    return splits


def fold_sides(cell: cells.Cell, splits: Splits) -> list[int]:
    """Split of a cell in folds 1 to 5: 0 train, 1 test, -1 not given."""
    return [splits.get((1 + fold, cell.specimen_id), NOT_GIVEN) for fold in range(NUM_FOLDS)]


def _csv_files(folder: pathlib.Path) -> list[pathlib.Path]:
    if _FOLD_FOLDER.fullmatch(folder.name):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv" and path.is_file())


def _fold_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The lists `foldK/train.csv` and `foldK/test.csv` below a folder."""
    tops = sorted(path for path in folder.iterdir() if path.is_dir() and _FOLD_FOLDER.fullmatch(path.name))
    return tuple(path for top in tops for path in sorted(top.iterdir()) if path.name in ("test.csv", "train.csv"))


def _column(names: dict[str, int], name: str) -> int | None:
    return next((names[spelling] for spelling in _COLUMNS[name] if spelling in names), None)


def _check_one(names: list[str], what: str) -> None:
    if len(names) > 1:
        raise ValueError(
            f"snphep2: {len(names)} {what}, '{names[0]}' and '{names[1]}': name the directory of one, or move the "
            "others away"
        )


def _cell(entries: dict[str, str], order: int, folder: pathlib.Path, where: str) -> cells.Cell:
    if not entries["specimen"]:
        raise ValueError(f"{where}: no specimen is given, so that cells of one specimen could be in two splits")
    return cells.Cell(
        number=tables.cell_number(entries["number"], where) if "number" in entries else order,
        image=_file(entries["image"], folder, where),
        mask=_file(entries["mask"], folder, where) if entries.get("mask") else None,
        pattern=tables.known(entries["pattern"], SPELLINGS, "pattern", where),
        intensity=tables.intensity(entries.get("intensity", ""), where),
        specimen_id=tables.specimen_name(entries["specimen"]),
    )


def _file(entry: str, folder: pathlib.Path, where: str) -> pathlib.Path:
    relative = pathlib.PurePosixPath(entry.replace("\\", "/"))
    too_long = len(entry) > 1000 or any(len(part.encode()) > 255 for part in relative.parts)  # for file systems
    if not entry or relative.is_absolute() or ".." in relative.parts or too_long:
        raise ValueError(f"{where}: '{entry[:200]}' is not the path of a file below the folder of the index")
    return folder / relative


def _split_rows(path: pathlib.Path) -> Iterator[tuple[str, int, str, int]]:
    """Position (for messages), fold, specimen and split of each row of a list."""
    rows = tables.read_rows(path)
    names = tables.header(rows)
    if match := _FOLD_FOLDER.fullmatch(path.parent.name):
        first = 1 if "specimen" in names else 0
        column = names.get("specimen", 0)
        side = TRAIN if path.stem == "train" else TEST
        for line, row in rows[first:]:
            yield f"{path}, line {line}", int(match[1]), tables.specimen_name(row[column]), side
        return
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        fold, specimen, side = (row[names[name]] for name in _FOLD_COLUMNS)
        if not fold.isdecimal():
            raise ValueError(f"{where}: fold '{fold}' is not a number")
        split = TRAIN if tables.known(side, _SPLITS, "side", where) == "train" else TEST
        yield where, int(fold), tables.specimen_name(specimen), split


def _missing_cells(tree: Tree, listed: Sequence[cells.Cell], present: Sequence[cells.Cell]) -> Iterator[str]:
    specimens = {cell.specimen_id for cell in present}
    if len(present) < PUBLISHED_CELLS or len(specimens) < PUBLISHED_SPECIMENS:
        counts = collections.Counter(cell.pattern for cell in present)
        by_pattern = ", ".join(f"{name} {counts[name]}" for name in PATTERNS)
        yield (
            f"{len(present)} of {PUBLISHED_CELLS} cells of {len(specimens)} of {PUBLISHED_SPECIMENS} specimens found: "
            f"{by_pattern}"
        )
    if without_image := len(listed) - len(present):
        yield f"{without_image} rows of {tree.index.name} have no image"
    named = {path for cell in listed for path in (cell.image, cell.mask)}
    if without_row := sum(path not in named for path in _images_below(tree.index.parent)):
        yield f"{without_row} images have no row in {tree.index.name}, left out"
    counts_of_missing = {
        "no mask (their mask is all 0)": sum(cell.mask is None for cell in present),
        "no intensity": sum(cell.intensity == tables.UNKNOWN for cell in present),
    }
    yield from (f"{count} of {len(present)} cells have {what}" for what, count in counts_of_missing.items() if count)


def _images_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES and path.is_file())


def _missing_splits(present: Sequence[cells.Cell], splits: Splits) -> Iterator[str]:
    """Lines on specimens that the lists of the folds lack, and on listed specimens without a cell."""
    specimens = {cell.specimen_id for cell in present}
    if not splits:
        yield "no list of the five published folds: fold_sides is -1"
        return
    for fold in range(1, 1 + NUM_FOLDS):
        listed = {specimen for number, specimen in splits if number == fold}
        if unlisted := len(specimens - listed):
            yield f"fold {fold}: {unlisted} of {len(specimens)} specimens have no side"
        if without_cell := len(listed - specimens):
            yield f"fold {fold}: {without_cell} listed specimens have no cell"
