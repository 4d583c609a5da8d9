"""The owner's directory tree of the MIVIA HEp-2 images dataset v1.0: its files, and the spellings in its tables.

Irregularities of file names, tables and labels are handled here. This module decodes no pixels.
"""

import csv
import dataclasses
import pathlib
import re

from tfds_builders.fields import KINDS

ROOT_NAME = "MIVIA_HEp-2_Images_Dataset"
HOME_PAGE = "https://mivia.unisa.it/datasets/biomedical-image-datasets/hep2-image-dataset/"
PATTERNS = ("homogeneous", "fine_speckled", "coarse_speckled", "nucleolar", "centromere", "cytoplasmatic")
INTENSITIES = ("intermediate", "positive")

SPECIMENS = {
    "train": (1, 2, 3, 5, 6, 7, 8, 9, 11, 14, 18, 20, 25, 26),
    "test": (4, 10, 12, 13, 15, 16, 17, 19, 21, 22, 23, 24, 27, 28),
}
"""Specimens of each half of the contest, as its `cells.csv` assigns them."""
CONTEST_SETS = {"train": "training", "test": "test"}
"""The contest's name of each split, in tables and as a folder."""

_CONTEST = "ICPR2012_Cells_Classification_Contest"
_IMAGE_SUFFIXES = (".bmp", ".png")
# The tables of images 03 and 07 contain centromeric; that of image 05 contains artefatto once.
_SPELLINGS = {"centromeric": "centromere", "artefatto": "artefact"}
_OBJECT_COLUMNS = ("intensity", "cell_ID", "object_type", "pattern")
_CELL_COLUMNS = ("ICPR2012Contest_Cell_ID", "Set", "Image", "Intensity", "Cell_class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenFiles:
    """The files of one specimen."""

    specimen: int
    image: pathlib.Path
    table: pathlib.Path
    masks: dict[int, pathlib.Path]
    """Full-frame mask of each object, by the owner's object number."""

    @property
    def key(self) -> str:
        """Key of the example."""
        return specimen_id(self.specimen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectRow:
    """One annotated object of a specimen."""

    number: int
    kind: str
    """One of `fields.KINDS`."""
    pattern: str
    """One of `PATTERNS` for cells; positive or negative for mitotic cells; empty for artefacts."""
    intensity: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellRow:
    """One contest cell with its files; None for a missing file."""

    number: int
    """The contest's id; ids start at 1 in both sets."""
    contest_set: str
    """training or test."""
    specimen: int
    pattern: str
    intensity: str
    image: pathlib.Path | None
    mask: pathlib.Path | None

    @property
    def key(self) -> str:
        """Key of the example within its split."""
        return f"{self.number:03d}"

    @property
    def complete(self) -> bool:
        """Whether both files exist."""
        return self.image is not None and self.mask is not None


def specimen_id(number: int) -> str:
    """Name of a specimen, unique over all data sets, such as icpr2012-07."""
    return f"icpr2012-{number:02d}"


def find_root(manual_dir: pathlib.Path) -> pathlib.Path:
    """The owner's top directory, which is `manual_dir` or in it; raises FileNotFoundError if it is neither."""
    for root in (manual_dir, manual_dir / ROOT_NAME):
        if (root / "Main_Dataset").is_dir() or (root / _CONTEST).is_dir():
            return root
    raise FileNotFoundError(absence(manual_dir))


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was expected there, and how to obtain it."""
    return (
        f"icpr2012: no specimens found in '{manual_dir}': expected {ROOT_NAME}/ with "
        f"Main_Dataset/Images/NN/NN.bmp (or .png), NN.csv, Main_Dataset/Cells/Cell_Masks/NN/MMM.png and "
        f"{_CONTEST}/cells.csv, training/, test/; obtain the archive from {HOME_PAGE} "
        "(register and accept the licence agreement), unpack it and name the directory that holds it"
    )


def find_specimens(root: pathlib.Path) -> dict[str, list[SpecimenFiles]]:
    """The existing specimens by split; raises FileNotFoundError for one that lacks its table, image or masks."""
    expected = {split: [specimen_files(root, number) for number in SPECIMENS[split]] for split in SPECIMENS}
    return {split: [files for files in specimens if files is not None] for split, specimens in expected.items()}


def specimen_files(root: pathlib.Path, number: int) -> SpecimenFiles | None:
    """Files of a specimen; None without image and table, FileNotFoundError if only some of the files exist."""
    name = f"{number:02d}"
    folder = root / "Main_Dataset" / "Images" / name
    table = folder / f"{name}.csv"
    image = _image_file(_listing(folder), name)
    if image is None and not table.is_file():
        return None
    mask_folder = root / "Main_Dataset" / "Cells" / "Cell_Masks" / name
    masks = _object_masks(mask_folder)
    _check_complete(number, {f"{folder / name}.bmp (or .png)": image, str(table): table.is_file()})
    _check_complete(number, {f"{mask_folder}/MMM.png": masks})
    assert image is not None
    return SpecimenFiles(specimen=number, image=image, table=table, masks=masks)


def _check_complete(number: int, parts: dict[str, object]) -> None:
    missing = [name for name, part in parts.items() if not part]
    if missing:
        raise FileNotFoundError(
            f"{specimen_id(number)} is incomplete: {missing[0]} is missing; restore it from the owner's archive, "
            f"or remove the folder Main_Dataset/Images/{number:02d} to go without this specimen"
        )


def _object_masks(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Masks by object number. Image 09 has a `010..png` with two dots; a regular name takes precedence over it."""
    masks = {}
    for path in _listing(folder).values():
        match = re.fullmatch(r"(\d+)(\.+)(png|bmp)", path.name, re.IGNORECASE)
        if match and (int(match[1]) not in masks or match[2] == "."):
            masks[int(match[1])] = path
    return masks


def _listing(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of a folder by lower-case name, sorted; empty if there is no such folder."""
    return {path.name.lower(): path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def _image_file(listing: dict[str, pathlib.Path], stem: str) -> pathlib.Path | None:
    names = (f"{stem}{suffix}" for suffix in _IMAGE_SUFFIXES)
    return next((listing[name] for name in names if name in listing), None)


def read_objects(table: pathlib.Path) -> list[ObjectRow]:
    """Rows of `NN.csv`; raises ValueError, which names the line, for an unknown or repeated entry."""
    rows = []
    for line, row in _read_table(table, _OBJECT_COLUMNS):
        where = f"{table}, line {line}"
        kind = _label(row["object_type"], KINDS, "object type", where)
        intensity, pattern = row["intensity"], row["pattern"]
        if kind == "cell":  # for other kinds, pattern and intensity do not describe the specimen
            pattern = _label(pattern, PATTERNS, "pattern", where)
            intensity = _label(intensity, INTENSITIES, "intensity", where)
        number = _number(row["cell_ID"], "cell_ID", where)
        if any(number == other.number for other in rows):
            raise ValueError(f"{where}: cell_ID {number} is listed twice; restore the file from the owner's archive")
        rows.append(ObjectRow(number=number, kind=kind, pattern=pattern, intensity=intensity))
    return rows


def specimen_labels(table: pathlib.Path, rows: list[ObjectRow]) -> tuple[str, str]:
    """Pattern and intensity of the specimen: those of its cells, which must agree.

    Image 27 is intermediate in the table of the owner's README, but positive in its csv and in the contest; the csv is
    used.
    """
    labels = {(row.pattern, row.intensity) for row in rows if row.kind == "cell"}
    if len(labels) != 1:
        listed = ", ".join(" ".join(label) for label in sorted(labels)) or "no cell"
        raise ValueError(
            f"{table}: the cells of a specimen must share one pattern and intensity, found {listed}; "
            "restore the file from the owner's archive"
        )
    return labels.pop()


def contest_table(root: pathlib.Path) -> pathlib.Path:
    """The table with the specimen of each contest cell; raises FileNotFoundError if it does not exist."""
    table = root / _CONTEST / "cells.csv"
    if table.is_file():
        return table
    raise FileNotFoundError(
        f"{table} is missing: it gives the specimen of each contest cell, without which cells of one specimen could "
        f"be in two splits; restore it from the owner's archive ({HOME_PAGE})"
    )


def find_cells(root: pathlib.Path) -> dict[str, list[CellRow]]:
    """Every contest cell that `cells.csv` lists, by split, with those of its files that exist."""
    table = contest_table(root)
    listings = {split: _listing(root / _CONTEST / name) for split, name in CONTEST_SETS.items()}
    cells: dict[str, list[CellRow]] = {split: [] for split in CONTEST_SETS}
    splits = {name: split for split, name in CONTEST_SETS.items()}
    for line, row in _read_table(table, _CELL_COLUMNS):
        split = splits[_label(row["Set"], tuple(splits), "Set", f"{table}, line {line}")]
        cells[split].append(_cell_row(row, listings[split], f"{table}, line {line}"))
    return cells


def _cell_row(row: dict[str, str], listing: dict[str, pathlib.Path], where: str) -> CellRow:
    number = _number(row["ICPR2012Contest_Cell_ID"], "ICPR2012Contest_Cell_ID", where)
    return CellRow(
        number=number,
        contest_set=row["Set"].lower(),
        specimen=_number(row["Image"], "Image", where),
        pattern=_label(row["Cell_class"], PATTERNS, "pattern", where),
        intensity=_label(row["Intensity"], INTENSITIES, "intensity", where),
        image=_image_file(listing, f"{number:03d}"),
        mask=_image_file(listing, f"{number:03d}_mask"),
    )


def _read_table(path: pathlib.Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Line number and stripped entries of every row of a table with semicolons.

    The lines of the tables of images 01 to 07 end with CR alone; Python's universal newlines read any line ending.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            reader = csv.reader(file, delimiter=";")
            lines = [(reader.line_num, [entry.strip() for entry in line]) for line in reader if any(line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text table ({error}); restore it from the owner's archive") from error
    header = lines[0][1] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"{path} has no column '{missing[0]}': expected a header line with ';' between the columns")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ValueError(f"{path}, line {number}: {len(line)} entries instead of {len(header)}")
    return [(number, dict(zip(header, line, strict=True))) for number, line in lines[1:]]


def _label(value: str, known: tuple[str, ...], what: str, where: str) -> str:
    label = _SPELLINGS.get(value.lower(), value.lower())
    if label not in known:
        raise ValueError(f"{where}: unknown {what} '{value}'; expected one of {', '.join(known)}")
    return label


def _number(value: str, column: str, where: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{where}: {column} '{value}' is not a number")
    return int(value)
