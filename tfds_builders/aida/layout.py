"""The files of AIDA_HEp-2: a folder of images and one table with their labels.

The names of the table and of two of its columns, ImageFileName and StainingPatterns, are public. Which other columns
hold the patient and the intensity is our interpretation, from their names and values. This module decodes no pixels.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tfds_builders import sheets, tables
from tfds_builders.aida.terms import read_terms
from tfds_builders.owner_files import shorten

HOME_PAGE = "http://www.aidaproject.net"
TABLE_NAME = "AIDA_HEp-2_GroundTruth"
INTENSITIES = ("positive", "negative", "unknown")
UNKNOWN = INTENSITIES[-1]
PUBLISHED_IMAGES = 2080

_COLUMNS = ("imagefilename", "stainingpatterns")
_PATIENT_WORDS = ("patient", "sample", "record", "serum", "sera")
_OTHER_WORDS = ("age", "sex", "gender")  # columns that start or end with these describe patients but do not name them
_GRADES = tables.spellings_of(INTENSITIES, {"pos": "positive", "+": "positive", "neg": "negative", "": UNKNOWN})
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_MAX_NAMES = 8  # in a line about what is missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """One labelled image."""

    path: pathlib.Path
    patterns: tuple[str, ...]
    """Codes from `terms.CODES`."""
    unknown_terms: tuple[str, ...]
    intensity: str
    """One of `INTENSITIES`."""
    specimen_id: str
    """Name of the patient's record, unique over all data sets; empty if the table does not give it."""

    @property
    def patterns_known(self) -> bool:
        """Whether `patterns` is complete: every term is known, and an image that is not negative has a pattern."""
        return not self.unknown_terms and (bool(self.patterns) or self.intensity == "negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Labelled images in the order of the table, with lines on what is missing and on what a user must know."""

    images: tuple[Image, ...]
    missing: list[str]
    notes: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Columns:
    """Indices of the columns of the table."""

    image: int
    patterns: int
    intensity: int | None
    patient: int | None


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was expected there, and how to obtain it."""
    return (
        f"aida: no labelled images found in '{manual_dir}' and its folders: expected {TABLE_NAME}.xls (or .xlsx, .csv) "
        "with the columns ImageFileName and StainingPatterns, and the images in aida_project_database/; register at "
        f"{HOME_PAGE}, download AIDA_HEp-2, unpack it and name the directory that holds it"
    )


def find_table(manual_dir: pathlib.Path) -> pathlib.Path:
    """The table. A table that a user has converted takes precedence over the owner's: .csv, then .xlsx, then .xls.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: there are two of one kind.
    """
    for suffix in sheets.SUFFIXES:
        tables_found = [path for path in _files(manual_dir) if path.name.lower() == f"{TABLE_NAME}{suffix}".lower()]
        if len(tables_found) > 1:
            raise ValueError(f"there are two tables, {tables_found[0]} and {tables_found[1]}; remove one of them")
        if tables_found:
            return tables_found[0]
    raise FileNotFoundError(absence(manual_dir))


def read_contents(manual_dir: pathlib.Path) -> Contents:
    """The images that exist, with their labels.

    Raises:
        FileNotFoundError: there is no table, or none of its images exists.
        ValueError: the table is damaged, lacks a column or names an image twice.
    """
    table = find_table(manual_dir)
    rows = sheets.read_sheet(table)
    columns, header, rows = _find_columns(table, rows)
    entries = _by_name(table, rows, columns.image)
    files = _images(manual_dir)
    images = tuple(_image(files[name], row, columns) for name, row in entries.items() if name in files)
    if not images:
        raise FileNotFoundError(f"{absence(manual_dir)} (none of the {len(entries)} images that {table} names exists)")
    missing = [*_missing_files(entries, files), *_missing_labels(images)]
    return Contents(images=images, missing=missing, notes=list(_notes(columns, header)))


def source_files(manual_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file that a build would read."""
    yield find_table(manual_dir)
    yield from _images(manual_dir).values()


def _files(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in manual_dir.rglob("*") if path.is_file())


def _images(manual_dir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every image by its lower-case name; raises ValueError if two images have the same name."""
    images: dict[str, pathlib.Path] = {}
    for path in _files(manual_dir):
        if path.suffix.lower() in _SUFFIXES and images.setdefault(path.name.lower(), path) != path:
            other = images[path.name.lower()]
            raise ValueError(f"two images have the same name, {other} and {path}; remove one of them")
    return images


def _find_columns(table: pathlib.Path, rows: tables.Rows) -> tuple[_Columns, list[str], tables.Rows]:
    """The columns, the entries of the header, and the rows below it."""
    for start, (_, entries) in enumerate(rows):
        names = [tables.plain(entry) for entry in entries]
        if all(name in names for name in _COLUMNS):
            image, patterns = (names.index(name) for name in _COLUMNS)
            body = rows[start + 1 :]
            for line, row in body:
                if len(row) < len(names):
                    raise ValueError(f"{table}, line {line}: {len(row)} entries instead of {len(names)}")
            values = [[row[k] for _, row in body] for k in range(len(names))]
            free = [k for k in range(len(names)) if k not in (image, patterns)]
            columns = _Columns(
                image=image,
                patterns=patterns,
                intensity=_intensity_column(names, values, free),
                patient=_patient_column(names, free),
            )
            return columns, entries, body
    raise ValueError(f"{table} has no header with the columns ImageFileName and StainingPatterns")


def _intensity_column(names: Sequence[str], values: Sequence[Sequence[str]], free: Sequence[int]) -> int | None:
    """The column with intensity or fluorescence in its name, or the first with nothing but intensities as entries."""
    by_name = (k for k in free if "intensity" in names[k] or "fluorescence" in names[k])
    by_values = (k for k in free if any(values[k]) and all(tables.plain(value) in _GRADES for value in values[k]))
    return next(by_name, next(by_values, None))


def _patient_column(names: Sequence[str], free: Sequence[int]) -> int | None:
    """The column that names patients, samples, records or sera, in this order of preference."""
    named = [k for k in free if not names[k].startswith(_OTHER_WORDS) and not names[k].endswith(_OTHER_WORDS)]
    fits: list[Callable[[str], bool]] = [lambda name, word=word: word in name for word in _PATIENT_WORDS]
    fits.append(lambda name: name == "id")
    return next((k for fit in fits for k in named if fit(names[k])), None)


def _by_name(table: pathlib.Path, rows: tables.Rows, column: int) -> dict[str, list[str]]:
    """Rows by the lower-case name of their image; rows without an image name are skipped."""
    entries: dict[str, list[str]] = {}
    for line, row in rows:
        name = row[column].replace("\\", "/").rsplit("/", 1)[-1].lower()
        if name and entries.setdefault(name, row) is not row:
            raise ValueError(f"{table}, line {line}: the image {row[column]} is listed twice; correct the table")
    return entries


def _image(path: pathlib.Path, row: Sequence[str], columns: _Columns) -> Image:
    patterns, unknown = read_terms(row[columns.patterns])
    intensity = "" if columns.intensity is None else row[columns.intensity]
    patient = "" if columns.patient is None else row[columns.patient]
    return Image(
        path=path,
        patterns=patterns,
        unknown_terms=unknown,
        intensity=_GRADES.get(tables.plain(intensity), UNKNOWN),
        specimen_id=f"aida-{patient}" if patient else "",
    )


def _notes(columns: _Columns, header: Sequence[str]) -> Iterator[str]:
    for what, column in (("patient", columns.patient), ("intensity", columns.intensity)):
        if column is None:
            yield f"no column of the table is read as the {what}"
        else:
            yield f"the column '{header[column]}' is read as the {what}"


def _missing_files(entries: Mapping[str, object], files: Mapping[str, object]) -> Iterator[str]:
    present = entries.keys() & files.keys()
    if len(present) < PUBLISHED_IMAGES:
        yield f"{len(present)} of {PUBLISHED_IMAGES} images found"
    yield from _count_and_name("images of the table do not exist", entries.keys() - files.keys())
    yield from _count_and_name("images have no row in the table, left out", files.keys() - entries.keys())


def _missing_labels(images: Sequence[Image]) -> Iterator[str]:
    by_unknown_term = collections.defaultdict(list)
    for image in images:
        for term in image.unknown_terms:
            by_unknown_term[term].append(image.path.name)
    for term, names in sorted(by_unknown_term.items()):
        yield from _count_and_name(f"images have the unknown term '{term}', their patterns are not all known", names)
    conditions = {
        "images have no pattern and are not negative": lambda i: (
            not (i.patterns or i.unknown_terms or i.patterns_known)
        ),
        "images have no intensity": lambda i: i.intensity == UNKNOWN,
        "images have no patient": lambda i: not i.specimen_id,
    }
    for what, lacks in conditions.items():
        yield from _count_and_name(what, [image.path.name for image in images if lacks(image)])


def _count_and_name(what: str, names: Iterable[str]) -> Iterator[str]:
    """A line that counts and names images; none if there are none."""
    if ordered := sorted(names):
        yield f"{len(ordered)} {what}: {shorten(ordered, _MAX_NAMES)}"
