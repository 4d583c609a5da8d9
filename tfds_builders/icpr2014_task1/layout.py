"""The directory trees of the copies of I3A Task 1: the files of cells, the kind of copy, and the tables of labels.

This module decodes no pixels.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

from tfds_builders import cells, tables
from tfds_builders.icpr2014_task1.labels import Label, Place, read_labels, read_places

HOME_PAGE = "https://hep2.unisa.it/task-1.html"
PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi")
PUBLISHED_CELLS = dict(zip(PATTERNS, (2494, 2831, 2598, 2741, 2208, 724), strict=True))
"""Numbers of cells in the public training set, 13,596 in total."""
SPLITS = ("train", "validation", "test")
SPELLINGS = tables.spellings_of(PATTERNS, {"NuMem": "nuclear_membrane", "Centromeric": "centromere"})

LABELS_NAME = "gt_training.csv"
PLACES_NAME = "specimens.csv"
_SPLIT_FOLDERS = {
    "tra": "train",
    "train": "train",
    "training": "train",
    "val": "validation",
    "validation": "validation",
    "tes": "test",
    "test": "test",
}
_PARTITIONED = ("class folders in split folders", "flat split folders")
_FILE_NAME = re.compile(r"(\d+)(_mask)?\.png", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellFiles:
    """The files of a cell, with the pattern and the split that their folders imply."""

    number: int
    image: pathlib.Path
    mask: pathlib.Path | None
    pattern: str | None
    """None in a flat folder."""
    split: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy of the data set."""

    root: pathlib.Path
    kind: str
    """Description of its layout."""
    files: tuple[CellFiles, ...]
    """Sorted by number; every number occurs once."""
    lone_masks: int
    """Number of masks without an image."""
    labels: pathlib.Path | None
    places: pathlib.Path | None

    @property
    def partitioned(self) -> bool:
        """Whether the copy has its own splits."""
        return self.kind in _PARTITIONED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Labelled cells of a copy, sorted by number, with lines on what is missing and on what a user must know."""

    cells: tuple[cells.Cell, ...]
    missing: list[str]
    notes: list[str]


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was expected there, and how to obtain it."""
    return (
        f"icpr2014_task1: no cells found in '{manual_dir}' or one folder below: expected <Class>/NNNNN.png with "
        f"NNNNN_Mask.png, or NNNNN.png with {LABELS_NAME}, or tra/, val/, tes/ with <Class>/NNNNN.png, where <Class> "
        "is Homogeneous, Speckled, Nucleolar, Centromere, NuMem or Golgi; ask the organisers for the training set of "
        f"Task 1 ({HOME_PAGE}), unpack it and name the directory that holds it"
    )


def find_copy(manual_dir: pathlib.Path) -> Copy:
    """The only copy in `manual_dir` or in one of its folders.

    Raises:
        FileNotFoundError: there is no copy, or a flat one without the table of its labels.
        ValueError: there is more than one copy (public copies differ in size, stretch and orientation), a cell occurs
            twice, or a folder of cells has an unknown name.
    """
    if not manual_dir.is_dir():
        raise FileNotFoundError(absence(manual_dir))
    copies = list(_copies_at(manual_dir, manual_dir))
    folders_in_use = {files.image.relative_to(manual_dir).parts[0] for copy in copies for files in copy.files}
    for folder in _subfolders(manual_dir):
        if folder.name not in folders_in_use:
            copies.extend(_copies_at(folder, manual_dir))
    if not copies:
        raise FileNotFoundError(absence(manual_dir))
    if len(copies) > 1:
        names = " and ".join(f"'{copy.root}' ({copy.kind})" for copy in copies)
        raise ValueError(
            f"icpr2014_task1: '{manual_dir}' holds {len(copies)} copies, {names}; they must not be mixed, because "
            "public copies differ in size, stretch and orientation; name the directory of one, or move the others away"
        )
    _check(copies[0])
    return copies[0]


def read_contents(copy: Copy) -> Contents:
    """The cells of a copy with the entries of its tables; raises ValueError if tables and folders disagree."""
    labels, notes = read_labels(copy.labels, SPELLINGS) if copy.labels else ({}, [])
    places, inferred = read_places(copy.places) if copy.places else ({}, False)
    if any(label.specimen_id for label in labels.values()):
        # The owner's names of specimens and the recovered ones must not be mixed: s003 is another specimen in each.
        places = {number: dataclasses.replace(place, specimen_id="") for number, place in places.items()}
    labelled = tuple(
        _cell(files, copy, labels.get(files.number), places.get(files.number))
        for files in copy.files
        if files.pattern or files.number in labels
    )
    cells.check_specimens(labelled, copy.places or copy.labels or copy.root)
    if inferred:
        notes.append(f"the intensity is inferred, not ground truth: column intensity_inferred of {PLACES_NAME}")
    missing = [*_missing_cells(copy, labelled), *_missing_rows(copy, labels, places), *_missing_truth(copy, labelled)]
    return Contents(cells=labelled, missing=missing, notes=notes)


def source_files(copy: Copy) -> Iterator[pathlib.Path]:
    """Every file that a build would read."""
    yield from (table for table in (copy.labels, copy.places) if table)
    yield from (path for files in copy.files for path in (files.image, files.mask) if path)


def _copies_at(root: pathlib.Path, manual_dir: pathlib.Path) -> Iterator[Copy]:
    """The copies, of any layout, that have `root` as top directory."""
    splits = _split_folders(root)
    parts = {
        "class folders": [(folder, pattern, "train") for folder, pattern in _class_folders(root)],
        "a flat folder": [(root, None, "train")],
        _PARTITIONED[0]: [(f, p, split) for top, split in splits for f, p in _class_folders(top)],
        _PARTITIONED[1]: [(folder, None, split) for folder, split in splits],
    }
    for kind, folders in parts.items():
        listed = [_list_cells(*folder) for folder in folders]
        files = sorted((cell for cells_of_folder, _ in listed for cell in cells_of_folder), key=lambda c: c.number)
        if files:
            yield Copy(
                root=root,
                kind=kind,
                files=tuple(files),
                lone_masks=sum(lone for _, lone in listed),
                labels=_table(LABELS_NAME, root, manual_dir),
                places=_table(PLACES_NAME, root, manual_dir),
            )


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _split_folders(root: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Folders with the name of a split; none if there is only a training folder, as the contest may distribute it."""
    named = [(f, _SPLIT_FOLDERS[f.name.lower()]) for f in _subfolders(root) if f.name.lower() in _SPLIT_FOLDERS]
    alone = [folder.name.lower() for folder, _ in named] in (["train"], ["training"])
    return [] if alone else named


def _class_folders(root: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Folders with the name of a class; raises ValueError if there is another folder of cells beside them."""
    folders = {folder: SPELLINGS.get(tables.plain(folder.name)) for folder in _subfolders(root)}
    named = [(folder, pattern) for folder, pattern in folders.items() if pattern]
    unnamed = [folder for folder, pattern in folders.items() if not pattern and _list_cells(folder, None, "")[0]]
    if named and unnamed and any(_list_cells(folder, pattern, "")[0] for folder, pattern in named):
        raise ValueError(
            f"{unnamed[0]}: the folder holds cells beside class folders, but its name is none of "
            f"{', '.join(PATTERNS)}; correct the name or, if it is another copy of the data, move it away: copies must "
            "not be mixed"
        )
    return named


def _list_cells(folder: pathlib.Path, pattern: str | None, split: str) -> tuple[list[CellFiles], int]:
    """The cells of a folder, and the number of its masks without an image."""
    matches = [(match, path) for path in sorted(folder.iterdir()) if (match := _FILE_NAME.fullmatch(path.name))]
    masks = {match[1]: path for match, path in matches if match[2]}
    images = [(match[1], path) for match, path in matches if not match[2]]
    listed = [
        CellFiles(number=int(digits), image=path, mask=masks.get(digits), pattern=pattern, split=split)
        for digits, path in images
    ]
    return listed, len(masks.keys() - {digits for digits, _ in images})


def _table(name: str, *folders: pathlib.Path) -> pathlib.Path | None:
    """Path of a table in the first of the folders that has it."""
    return next((path for path in (folder / name for folder in folders) if path.is_file()), None)


def _check(copy: Copy) -> None:
    for previous, cell in zip(copy.files, copy.files[1:], strict=False):
        if previous.number == cell.number:
            raise ValueError(
                f"cell {cell.number:05d} occurs twice: {previous.image} and {cell.image}; remove one of them"
            )
    if copy.files[0].pattern is None and copy.labels is None:
        raise FileNotFoundError(
            f"'{copy.root}' holds cells without class folders, but no {LABELS_NAME} that names their classes; put it "
            "beside them"
        )


def _cell(files: CellFiles, copy: Copy, label: Label | None, place: Place | None) -> cells.Cell:
    """A cell with everything that is known about it; `gt_training.csv` takes precedence over `specimens.csv`."""
    if label and files.pattern and label.pattern != files.pattern:
        raise ValueError(
            f"cell {files.number:05d} is {label.pattern} in {copy.labels}, line {label.line}, but {files.image} is in "
            f"a folder of {files.pattern}; restore both from the owner's archive"
        )
    pattern = files.pattern or (label.pattern if label else None)
    assert pattern is not None
    intensity = label.intensity if label else tables.UNKNOWN
    if intensity == tables.UNKNOWN and place:
        intensity = place.intensity
    return cells.Cell(
        number=files.number,
        image=files.image,
        mask=files.mask,
        pattern=pattern,
        intensity=intensity,
        specimen_id=(label.specimen_id if label else "") or (place.specimen_id if place else ""),
        location=place.location if place else cells.NO_LOCATION,
        split=files.split,
    )


def _missing_cells(copy: Copy, labelled: tuple[cells.Cell, ...]) -> Iterator[str]:
    counts = collections.Counter(cell.pattern for cell in labelled)
    if any(counts[pattern] < published for pattern, published in PUBLISHED_CELLS.items()):
        by_pattern = ", ".join(f"{name} {counts[name]} of {total}" for name, total in PUBLISHED_CELLS.items())
        yield f"{len(labelled)} of {sum(PUBLISHED_CELLS.values())} cells found: {by_pattern}"
    if copy.partitioned:
        present = {cell.split for cell in labelled}
        yield from (f"split {split}: no cell found, not built" for split in SPLITS if split not in present)


def _missing_rows(copy: Copy, labels: Mapping[int, Label], places: Mapping[int, Place]) -> Iterator[str]:
    """Lines on cells without a row in a table, and on rows without a cell."""
    numbers = {files.number for files in copy.files}
    flat = copy.files[0].pattern is None
    for table, rows, consequence in ((copy.labels, labels, ", left out" if flat else ""), (copy.places, places, "")):
        if table and (without_row := len(numbers - rows.keys())):
            yield f"{without_row} images have no row in {table.name}{consequence}"
        if table and (without_image := len(rows.keys() - numbers)):
            yield f"{without_image} rows of {table.name} have no image"


def _missing_truth(copy: Copy, labelled: tuple[cells.Cell, ...]) -> Iterator[str]:
    """Lines on missing masks, specimens and intensities."""
    counts = {
        "no mask (their mask is all 0)": sum(cell.mask is None for cell in labelled),
        "no specimen id": sum(not cell.specimen_id for cell in labelled),
        "no intensity": sum(cell.intensity == tables.UNKNOWN for cell in labelled),
    }
    yield from (f"{count} of {len(labelled)} cells have {what}" for what, count in counts.items() if count)
    if copy.lone_masks:
        yield f"{copy.lone_masks} masks have no image, left out"
