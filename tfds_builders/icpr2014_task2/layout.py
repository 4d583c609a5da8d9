"""The directory tree of I3A Task 2: images and masks of four fields a specimen, and tables of their labels.

Names of files and spellings of labels are those that public programs read. The tables themselves have not been seen:
which of their columns is what is our reading, made from their values (`_Columns`). Decodes no pixel.
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
"""Images of a specimen, numbered from 0."""
PUBLISHED_IMAGES = 1008
"""Images of the training set; those of the test set were never given out."""
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
        """Name of the example."""
        return f"{self.specimen:05d}-{self.number}"

    @property
    def specimen_id(self) -> str:
        """Name of the specimen over all data sets."""
        return f"icpr2014_task2-{self.specimen:05d}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """The files of one copy of the data set."""

    images: Mapping[Place, pathlib.Path]
    masks: Mapping[Place, pathlib.Path]
    tables: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """What the tables say, by specimen; entries that are not known stand as they are written."""

    patterns: Mapping[int, str]
    intensities: Mapping[int, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Fields by specimen and number, and lines on what is missing."""

    fields: tuple[Field, ...]
    missing: list[str]


def absence(manual_dir: pathlib.Path) -> str:
    """One line for a directory without the data: what was sought there, and how to obtain it."""
    return (
        f"icpr2014_task2: no labelled specimens found in '{manual_dir}' and its folders: expected NNNNN_pK.tif with "
        "NNNNN_pK_Mask.tif (K = 0 to 3) and a .csv that gives specimens (or their images), class and intensity; ask "
        f"the organisers for the training set of Task 2 ({HOME_PAGE}), unpack it and name the directory that holds it"
    )


def find_tree(manual_dir: pathlib.Path) -> Tree:
    """The images, masks and tables in `manual_dir` and its folders; ValueError if an image stands there twice."""
    images: dict[Place, pathlib.Path] = {}
    masks: dict[Place, pathlib.Path] = {}
    found = sorted(path for path in manual_dir.rglob("*") if path.is_file())
    for path in found:
        if match := _FILE_NAME.fullmatch(path.name):
            other = (masks if match[3] else images).setdefault((int(match[1]), int(match[2])), path)
            if other != path:
                raise ValueError(f"{path} stands there twice, as {other}, too: remove one of them")
    return Tree(images=images, masks=masks, tables=tuple(path for path in found if path.suffix.lower() == ".csv"))


def read_contents(manual_dir: pathlib.Path) -> Contents:
    """The labelled fields that have a mask, and what is missing.

    Raises:
        FileNotFoundError: There is no such field.
        ValueError: A table is damaged, or two rows contradict each other.
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
            intensity=_graded(labels, place[0]),
        )
        for place, image in sorted(tree.images.items())
        if place in tree.masks and labels.patterns.get(place[0]) in PATTERNS
    )
    missing = [*_missing_fields(fields), *_missing_files(tree, labels), *_missing_labels(tree, labels)]
    if not fields:
        found = f" ({'; '.join(missing[1:])})" if tree.images else ""
        raise FileNotFoundError(absence(manual_dir) + found)
    return Contents(fields=fields, missing=missing)


def source_files(manual_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file that would be read."""
    tree = find_tree(manual_dir)
    yield from (*tree.images.values(), *tree.masks.values(), *tree.tables)


def read_labels(paths: Iterable[pathlib.Path]) -> Labels:
    """Labels of all tables together, with or without a header; a table without specimens or labels is passed over.

    A row is of a specimen (`7`, `00007`) or of one of its images (`00007_p0.tif`).
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
    """Which column of a table is what."""

    specimen: int
    pattern: int | None
    intensity: int | None


def _find_columns(rows: Sequence[Sequence[str]]) -> _Columns | None:
    """By their values: the first column of ids, and those with most known classes and most known intensities.

    A first row without an id is a header. None for a table that is none of labels.
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
    """The column with most values that fit; None if there is none."""
    counts = [sum(map(fits, values)) for values in columns]
    return counts.index(max(counts)) if any(counts) else None


def _entry(value: str) -> re.Match[str] | None:
    return _ENTRY.fullmatch(value.replace("\\", "/").rsplit("/", 1)[-1])


def _enter(labels: dict[int, str], specimen: int, entry: str, spellings: Mapping[str, str], where: str) -> None:
    label = spellings.get(tables.plain(entry), entry)
    other = labels.setdefault(specimen, label)
    if other != label:
        raise ValueError(f"{where}: specimen {specimen:05d} is {label}, but {other} elsewhere; mend one of the rows")


def _graded(labels: Labels, specimen: int) -> str:
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
    yield from _said("specimens have fewer than 4 fields", [key for key, count in counts.items() if count < FIELDS])


def _missing_files(tree: Tree, labels: Labels) -> Iterator[str]:
    images, masks = tree.images.keys(), tree.masks.keys()
    yield from _said("images have no mask, left out", images - masks)
    yield from _said("masks have no image, left out", masks - images)
    specimens = {specimen for specimen, _ in images}
    yield from _said("specimens of the tables have no image", labels.patterns.keys() - specimens)


def _missing_labels(tree: Tree, labels: Labels) -> Iterator[str]:
    specimens = {specimen for specimen, _ in tree.images}
    yield from _said("specimens have no class in a table, left out", specimens - labels.patterns.keys())
    yield from _unknown("class", labels.patterns, PATTERNS, "left out", specimens)
    yield from _said("specimens have no intensity", specimens - labels.intensities.keys())
    yield from _unknown("intensity", labels.intensities, tables.INTENSITIES, "taken as unknown", specimens)


def _unknown(
    what: str, labels: Mapping[int, str], known: Sequence[str], then: str, specimens: Set[int]
) -> Iterator[str]:
    groups: dict[str, list[int]] = {}
    for specimen in specimens & labels.keys():
        if labels[specimen] not in known:
            groups.setdefault(labels[specimen], []).append(specimen)
    for entry, members in sorted(groups.items()):
        yield from _said(f"specimens of the unknown {what} '{entry}', {then}", members)


def _said(what: str, keys: Iterable[int | Place]) -> Iterator[str]:
    """A line that counts and names specimens, or fields of them; none if there are none."""
    names = [f"{key:05d}" if isinstance(key, int) else f"{key[0]:05d}_p{key[1]}" for key in sorted(keys)]
    if names:
        yield f"{len(names)} {what}: {shorten(names, _MAX_NAMES)}"
