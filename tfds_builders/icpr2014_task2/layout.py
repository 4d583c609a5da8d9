"""The directory tree of I3A Task 2: images and masks of four fields of each specimen, and tables of their labels.

Names of files and spellings of labels are those that public programs read. We have not seen the tables themselves; the
meaning of their columns is our interpretation, from their values (`_Columns`). This module decodes no pixels.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from tfds_builders import tables
from tfds_builders.owner_files import shorten

HOME_PAGE = "https://hep2.unisa.it/contest-tasks.html"
PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi", "mitotic_spindle")
FIELDS = 4
"""Number of images of a specimen; they are numbered from 0."""
PUBLISHED_IMAGES = 1008
"""Number of images of the training set; those of the test set were never published."""
SPELLINGS = tables.spellings_of(
    PATTERNS, {"numem": "nuclear_membrane", "mitsp": "mitotic_spindle", "centromeric": "centromere"}
)

_GRADES = tables.spellings_of(tables.INTENSITIES, {})
_FILE_NAME = re.compile(r"(\d+)_p(\d)(_mask)?\.(tiff?|png|bmp)", re.IGNORECASE)
_ENTRY = re.compile(r"(\d+)(_p\d)?(_mask)?(\.\w+)?", re.IGNORECASE)
_MAX_NAMES = 8  # in a line about what is missing

Place = tuple[int, int]
"""Number of the specimen and of its field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One image of a specimen with its mask and the labels of the specimen."""

    specimen: int
    number: int
    image: pathlib.Path
    mask: pathlib.Path
    pattern: str
    intensity: str

    @property
    def key(self) -> str:
        """Key of the example."""
        return f"{self.specimen:05d}-{self.number}"

    @property
    def specimen_id(self) -> str:
        """Name of the specimen, unique over all data sets."""
        return f"icpr2014_task2-{self.specimen:05d}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """The files of one copy of the data set."""

    images: Mapping[Place, pathlib.Path]
    masks: Mapping[Place, pathlib.Path]
    tables: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels in the tables, by specimen; unknown entries are kept as they are written."""

    patterns: Mapping[int, str]
    intensities: Mapping[int, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Fields in order of specimen and number, and lines on what is missing."""

    fields: tuple[Field, ...]
    missing: list[str]


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was expected there, and how to obtain it."""
    return (
        f"icpr2014_task2: no labelled specimens found in '{manual_dir}' and its folders: expected NNNNN_pK.tif with "
        "NNNNN_pK_Mask.tif (K = 0 to 3) and a .csv that gives specimens (or their images), class and intensity; ask "
        f"the organisers for the training set of Task 2 ({HOME_PAGE}), unpack it and name the directory that holds it"
    )


def find_tree(manual_dir: pathlib.Path) -> Tree:
    """The images, masks and tables in `manual_dir` and its folders; raises ValueError if there are two of one field."""
    images: dict[Place, pathlib.Path] = {}
    masks: dict[Place, pathlib.Path] = {}
    paths = sorted(path for path in manual_dir.rglob("*") if path.is_file())
    for path in paths:
        if match := _FILE_NAME.fullmatch(path.name):
            other = (masks if match[3] else images).setdefault((int(match[1]), int(match[2])), path)
            if other != path:
                raise ValueError(f"there are two files of one field, {other} and {path}; remove one of them")
    return Tree(images=images, masks=masks, tables=tuple(path for path in paths if path.suffix.lower() == ".csv"))


def read_contents(manual_dir: pathlib.Path) -> Contents:
    """The labelled fields that have a mask, and what is missing.

    Raises:
        FileNotFoundError: there is no such field.
        ValueError: a table is damaged, or two rows contradict each other.
    """
    tree = find_tree(manual_dir)
    labels = read_labels(tree.tables)
    fields = tuple(
        Field(
            specimen=place[0],
            number=place[1],
            image=image,
            mask=tree.masks[place],
            pattern=labels.patterns[place[0]],
            intensity=_intensity(labels, place[0]),
        )
        for place, image in sorted(tree.images.items())
        if place in tree.masks and labels.patterns.get(place[0]) in PATTERNS
    )
    missing = [*_missing_fields(fields), *_missing_files(tree, labels), *_missing_labels(tree, labels)]
    if not fields:
        reasons = f" ({'; '.join(missing[1:])})" if tree.images else ""
        raise FileNotFoundError(absence(manual_dir) + reasons)
    return Contents(fields=fields, missing=missing)


def source_files(manual_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file that a build would read."""
    tree = find_tree(manual_dir)
    yield from (*tree.images.values(), *tree.masks.values(), *tree.tables)


def read_labels(paths: Iterable[pathlib.Path]) -> Labels:
    """Labels of all tables together, with or without a header; a table without specimens or labels is skipped.

    A row describes a specimen (`7`, `00007`) or one of its images (`00007_p0.tif`).
    """
    patterns: dict[int, str] = {}
    intensities: dict[int, str] = {}
    for path in paths:
        rows = tables.read_rows(path)
        if (columns := _find_columns([entries for _, entries in rows])) is None:
            continue
        for line, row in rows:
            if (match := _entry(row[columns.specimen])) is None:
                continue  # the header
            where, specimen = f"{path}, line {line}", int(match[1])
            if columns.pattern is not None:
                _enter(patterns, specimen, row[columns.pattern], SPELLINGS, where)
            if columns.intensity is not None:
                _enter(intensities, specimen, row[columns.intensity], _GRADES, where)
    return Labels(patterns=patterns, intensities=intensities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Columns:
    """Indices of the columns of a table."""

    specimen: int
    pattern: int | None
    intensity: int | None


def _find_columns(rows: Sequence[Sequence[str]]) -> _Columns | None:
    """The columns, found by their values: the first with ids, and those with the most classes and intensities.

    A first row without an id is a header. None if the table does not hold labels.
    """
    body = rows[1:] if rows and not any(map(_entry, rows[0])) else rows
    columns = [[row[k] for row in body] for k in range(len(rows[0]) if body else 0)]
    specimen = next((k for k, values in enumerate(columns) if all(map(_entry, values))), None)
    pattern = _most(columns, lambda value: tables.plain(value) in SPELLINGS)
    intensity = _most(columns, lambda value: tables.plain(value) in _GRADES)
    if specimen is None or (pattern is None and intensity is None):
        return None
    return _Columns(specimen=specimen, pattern=pattern, intensity=intensity)


def _most(columns: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> int | None:
    """The column with the most values that fit; None if no value fits."""
    counts = [sum(map(fits, values)) for values in columns]
    return counts.index(max(counts)) if any(counts) else None


def _entry(value: str) -> re.Match[str] | None:
    return _ENTRY.fullmatch(value.replace("\\", "/").rsplit("/", 1)[-1])


def _enter(labels: dict[int, str], specimen: int, entry: str, spellings: Mapping[str, str], where: str) -> None:
    label = spellings.get(tables.plain(entry), entry)
    other = labels.setdefault(specimen, label)
    if other != label:
        raise ValueError(f"{where}: specimen {specimen:05d} is {label}, but {other} elsewhere; correct one of the rows")


def _intensity(labels: Labels, specimen: int) -> str:
    intensity = labels.intensities.get(specimen, "")
    return intensity if intensity in tables.INTENSITIES else tables.UNKNOWN


def _missing_fields(fields: Sequence[Field]) -> Iterator[str]:
    counts = collections.Counter(field.specimen for field in fields)
    if len(fields) < PUBLISHED_IMAGES:
        specimens = collections.Counter({field.specimen: field.pattern for field in fields}.values())
        by_pattern = ", ".join(f"{name} {specimens[name]}" for name in PATTERNS)
        published = (
            f"{len(fields)} of {PUBLISHED_IMAGES} images of {len(counts)} of {PUBLISHED_IMAGES // FIELDS} specimens"
        )
        yield f"{published} found: {by_pattern}"
    incomplete = [key for key, count in counts.items() if count < FIELDS]
    yield from _count_and_name("specimens have fewer than 4 fields", incomplete)


def _missing_files(tree: Tree, labels: Labels) -> Iterator[str]:
    images, masks = tree.images.keys(), tree.masks.keys()
    yield from _count_and_name("images have no mask, left out", images - masks)
    yield from _count_and_name("masks have no image, left out", masks - images)
    specimens = {specimen for specimen, _ in images}
    yield from _count_and_name("specimens of the tables have no image", labels.patterns.keys() - specimens)


def _missing_labels(tree: Tree, labels: Labels) -> Iterator[str]:
    specimens = {specimen for specimen, _ in tree.images}
    yield from _count_and_name("specimens have no class in a table, left out", specimens - labels.patterns.keys())
    yield from _unknown("class", labels.patterns, PATTERNS, "left out", specimens)
    yield from _count_and_name("specimens have no intensity", specimens - labels.intensities.keys())
    yield from _unknown("intensity", labels.intensities, tables.INTENSITIES, "taken as unknown", specimens)


def _unknown(
    what: str, labels: Mapping[int, str], known: Sequence[str], then: str, specimens: Set[int]
) -> Iterator[str]:
    groups: dict[str, list[int]] = {}
    for specimen in specimens & labels.keys():
        if labels[specimen] not in known:
            groups.setdefault(labels[specimen], []).append(specimen)
    for entry, members in sorted(groups.items()):
        yield from _count_and_name(f"specimens of the unknown {what} '{entry}', {then}", members)


def _count_and_name(what: str, keys: Iterable[int | Place]) -> Iterator[str]:
    """A line that counts and names specimens or fields; none if there are none."""
    names = [f"{key:05d}" if isinstance(key, int) else f"{key[0]:05d}_p{key[1]}" for key in sorted(keys)]
    if names:
        yield f"{len(names)} {what}: {shorten(names, _MAX_NAMES)}"
