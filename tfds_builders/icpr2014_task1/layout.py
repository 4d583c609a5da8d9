"""The directory trees in which I3A Task 1 is found: where cells lie, which copy it is, what labels them.

Decodes no pixel.
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
"""Cells of the public training set, which are 13,596."""
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
    """The files of a cell, and what the folders that hold them say."""

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
    """Words for its layout."""
    files: tuple[CellFiles, ...]
    """By number, and every number once."""
    lone_masks: int
    """Masks without an image."""
    labels: pathlib.Path | None
    places: pathlib.Path | None

    @property
    def partitioned(self) -> bool:
        """Whether the copy brings its own splits."""
        return self.kind in _PARTITIONED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Labelled cells of a copy, by number, with lines on what is missing and what a user must know."""

    cells: tuple[cells.Cell, ...]
    missing: list[str]
    notes: list[str]


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was sought there, and how to obtain it."""
    return (
        f"icpr2014_task1: no cells found in '{manual_dir}' or one folder below: expected <Class>/NNNNN.png with "
        f"NNNNN_Mask.png, or NNNNN.png with {LABELS_NAME}, or tra/, val/, tes/ with <Class>/NNNNN.png, where <Class> "
        "is Homogeneous, Speckled, Nucleolar, Centromere, NuMem or Golgi; ask the organisers for the training set of "
        f"Task 1 ({HOME_PAGE}), unpack it and name the directory that holds it"
    )


def find_copy(manual_dir: pathlib.Path) -> Copy:
    """The one copy that `manual_dir` holds, itself or in a folder of it.

    Raises:
        FileNotFoundError: There is none, or a flat one without the table of its labels.
        ValueError: There is more than one (public copies differ in size, stretch and orientation), a cell stands in
            one twice, or a folder of cells has no known name.
    """
    if not manual_dir.is_dir():
        raise FileNotFoundError(absence(manual_dir))
    found = list(_copies_at(manual_dir, manual_dir))
    taken = {files.image.relative_to(manual_dir).parts[0] for copy in found for files in copy.files}
    for folder in _subfolders(manual_dir):
        if folder.name not in taken:
            found.extend(_copies_at(folder, manual_dir))
    if not found:
        raise FileNotFoundError(absence(manual_dir))
    if len(found) > 1:
        names = " and ".join(f"'{copy.root}' ({copy.kind})" for copy in found)
        raise ValueError(
            f"icpr2014_task1: '{manual_dir}' holds {len(found)} copies, {names}: they must not be mixed, for public "
            "copies differ in size, stretch and orientation; name the directory of one, or move the others away"
        )
    _check(found[0])
    return found[0]


def read_contents(copy: Copy) -> Contents:
    """The cells of a copy with what its tables say of them; ValueError where tables and folders disagree."""
    labels, notes = read_labels(copy.labels, SPELLINGS) if copy.labels else ({}, [])
    places, inferred = read_places(copy.places) if copy.places else ({}, False)
    if any(label.specimen_id for label in labels.values()):
        # The owner's names of specimens and the recovered ones must not meet: s003 is another specimen in each.
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
    """Every file that would be read."""
    yield from (table for table in (copy.labels, copy.places) if table)
    yield from (path for files in copy.files for path in (files.image, files.mask) if path)


def _copies_at(root: pathlib.Path, manual_dir: pathlib.Path) -> Iterator[Copy]:
    """The copies whose top is `root`, of whichever layout."""
    splits = _split_folders(root)
    parts = {
        "class folders": [(folder, pattern, "train") for folder, pattern in _class_folders(root)],
        "a flat folder": [(root, None, "train")],
        _PARTITIONED[0]: [(f, p, split) for top, split in splits for f, p in _class_folders(top)],
        _PARTITIONED[1]: [(folder, None, split) for folder, split in splits],
    }
    for kind, folders in parts.items():
        listed = [_list_cells(*folder) for folder in folders]
        files = sorted((cell for found, _ in listed for cell in found), key=lambda cell: cell.number)
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
    """Folders with the name of a split; none if there is but a training folder, which the contest may ship so."""
    named = [(f, _SPLIT_FOLDERS[f.name.lower()]) for f in _subfolders(root) if f.name.lower() in _SPLIT_FOLDERS]
    alone = [folder.name.lower() for folder, _ in named] in (["train"], ["training"])
    return [] if alone else named


def _class_folders(root: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Folders with the name of a class; ValueError if another folder of cells stands beside them."""
    folders = {folder: SPELLINGS.get(tables.plain(folder.name)) for folder in _subfolders(root)}
    named = [(folder, pattern) for folder, pattern in folders.items() if pattern]
    stray = [folder for folder, pattern in folders.items() if not pattern and _list_cells(folder, None, "")[0]]
    if named and stray and any(_list_cells(folder, pattern, "")[0] for folder, pattern in named):
        raise ValueError(
            f"{stray[0]}: the folder holds cells beside class folders, but its name is none of {', '.join(PATTERNS)}; "
            "mend the name, or move another copy of the data away: copies must not be mixed"
        )
    return named


def _list_cells(folder: pathlib.Path, pattern: str | None, split: str) -> tuple[list[CellFiles], int]:
    """Cells of a folder, and the number of masks there without an image."""
    matches = [(match, path) for path in sorted(folder.iterdir()) if (match := _FILE_NAME.fullmatch(path.name))]
    masks = {match[1]: path for match, path in matches if match[2]}
    images = [(match[1], path) for match, path in matches if not match[2]]
    found = [
        CellFiles(number=int(digits), image=path, mask=masks.get(digits), pattern=pattern, split=split)
        for digits, path in images
    ]
    return found, len(masks.keys() - {digits for digits, _ in images})


def _table(name: str, *folders: pathlib.Path) -> pathlib.Path | None:
    """A table in the first of the folders that has it."""
    return next((path for path in (folder / name for folder in folders) if path.is_file()), None)


def _check(copy: Copy) -> None:
    for one, other in zip(copy.files, copy.files[1:], strict=False):
        if one.number == other.number:
            raise ValueError(
                f"cell {one.number:05d} stands there twice: {one.image} and {other.image}; remove one of them"
            )
    if copy.files[0].pattern is None and copy.labels is None:
        raise FileNotFoundError(
            f"'{copy.root}' holds cells without class folders, but no {LABELS_NAME} that names their classes; put it "
            "beside them"
        )


def _cell(files: CellFiles, copy: Copy, label: Label | None, place: Place | None) -> cells.Cell:
    """A cell with all that is known; what `gt_training.csv` says goes before `specimens.csv`."""
    if label and files.pattern and label.pattern != files.pattern:
        raise ValueError(
            f"cell {files.number:05d}: {copy.labels}, line {label.line}, says {label.pattern}, but {files.image} lies "
            f"in a folder of {files.pattern}; restore both from the owner's archive"
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
        there = {cell.split for cell in labelled}
        yield from (f"split {split}: no cell found, not built" for split in SPLITS if split not in there)


def _missing_rows(copy: Copy, labels: Mapping[int, Label], places: Mapping[int, Place]) -> Iterator[str]:
    """Cells without a row of a table, and rows without a cell."""
    numbers = {files.number for files in copy.files}
    flat = copy.files[0].pattern is None
    for table, rows, then in ((copy.labels, labels, ", left out" if flat else ""), (copy.places, places, "")):
        if table and (lacking := len(numbers - rows.keys())):
            yield f"{lacking} images have no row in {table.name}{then}"
        if table and (spare := len(rows.keys() - numbers)):
            yield f"{spare} rows of {table.name} have no image"


def _missing_truth(copy: Copy, labelled: tuple[cells.Cell, ...]) -> Iterator[str]:
    """Masks, specimens and intensities."""
    lacking = {
        "no mask (their mask is all 0)": sum(cell.mask is None for cell in labelled),
        "no specimen id": sum(not cell.specimen_id for cell in labelled),
        "no intensity": sum(cell.intensity == tables.UNKNOWN for cell in labelled),
    }
    yield from (f"{count} of {len(labelled)} cells have {what}" for what, count in lacking.items() if count)
    if copy.lone_masks:
        yield f"{copy.lone_masks} masks have no image, left out"
