"""TFDS builder of the MIVIA HEp-2 images dataset (ICPR 2012 contest), from the owner's directory tree."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import fields, pixels
from tfds_builders.icpr2012 import layout
from tfds_builders.owner_files import OwnerFilesBuilder, empty_lists, shorten

_MAX_NAMES = 12  # in a line about what is missing
_KeyedExamples = Iterator[tuple[str, dict[str, Any]]]


class Builder(OwnerFilesBuilder):
    """Images of specimens (`specimens`) or the contest's cells (`cells`), split by specimen as in the contest.

    Incomplete data are built as far as they exist; a split without any specimen is left out. `info.metadata["missing"]`
    is a list of lines on what was missing.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Contest split; union of the per-object masks; artefacts void."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="specimens", description="28 whole images with a mask of every object."),
        tfds.core.BuilderConfig(name="cells", description="The contest's 721 + 734 cell crops."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Obtain the MIVIA HEp-2 images dataset from {layout.HOME_PAGE} (register and accept the licence agreement), "
        f"unpack it, and name the directory that holds {layout.ROOT_NAME}/."
    )

    @property
    def _config_name(self) -> str:
        assert self.builder_config is not None  # TFDS takes the first of BUILDER_CONFIGS if none is named
        return self.builder_config.name

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to the owner's top directory."""
        root = layout.find_root(pathlib.Path(manual_dir))
        sources = _specimen_sources if self._config_name == "specimens" else _cell_sources
        return {path.relative_to(root).as_posix(): path for path in sources(root)}

    def _info(self) -> tfds.core.DatasetInfo:
        specimens = self._config_name == "specimens"
        features = fields.features(layout.PATTERNS, layout.INTENSITIES, channels=3) if specimens else _cell_features()
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=layout.HOME_PAGE,
            disable_shuffling=True,  # the owner's order: train[:3] means the same everywhere
            metadata=empty_lists("missing"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, _KeyedExamples]:
        root = layout.find_root(self.owner_dir(dl_manager, layout.absence))
        if self._config_name == "specimens":
            by_split: dict[str, list] = dict(layout.find_specimens(root))
        else:
            by_split = {split: self._complete_cells(split, rows) for split, rows in layout.find_cells(root).items()}
        if not any(by_split.values()):
            raise FileNotFoundError(layout.absence(root))
        for split, items in by_split.items():
            self._report_missing_specimens(split, {item.specimen for item in items})
        return {split: self._generate_examples(items) for split, items in by_split.items() if items}

    def _generate_examples(self, items: Sequence[layout.SpecimenFiles | layout.CellRow]) -> _KeyedExamples:
        for item in items:
            yield item.key, self._specimen(item) if isinstance(item, layout.SpecimenFiles) else _cell(item)

    def _specimen(self, files: layout.SpecimenFiles) -> dict[str, Any]:
        """One image with its objects, in the order of the owner's table."""
        rows = layout.read_objects(files.table)
        pattern, intensity = layout.specimen_labels(files.table, rows)
        image = pixels.read_colour(files.image)
        rows = self._rows_with_mask(files, rows)
        masks = [pixels.read_mask(files.masks[row.number], image.shape[:2]) for row in rows]
        instances = paint_objects(masks, image.shape[:2])
        return {
            "image": pixels.encode_png(image),
            "instance_mask": pixels.encode_png(instances),
            "class_mask": pixels.encode_png(_class_mask(instances, rows, pattern)),
            "pattern": pattern,
            "intensity": intensity,
            "specimen_id": layout.specimen_id(files.specimen),
            "field": 0,
            "objects": [{"instance": 1 + index, "kind": row.kind} for index, row in enumerate(rows)],
        }

    def _rows_with_mask(self, files: layout.SpecimenFiles, rows: list[layout.ObjectRow]) -> list[layout.ObjectRow]:
        """Objects of the table that have a mask file; others, and masks without a row, are reported and left out."""
        listed = {row.number for row in rows}
        self._report_left_out(files, "have no mask file", listed - files.masks.keys())
        self._report_left_out(files, f"have no row in {files.table.name}", files.masks.keys() - listed)
        return [row for row in rows if row.number in files.masks]

    def _complete_cells(self, split: str, rows: list[layout.CellRow]) -> list[layout.CellRow]:
        """Cells that have an image and a mask; the others are left out, and reported if there are any complete ones."""
        complete = [row for row in rows if row.complete]
        incomplete = [row.key for row in rows if not row.complete]
        if complete and incomplete:
            names = shorten(incomplete, _MAX_NAMES)
            self.report_missing(f"split {split}: {len(incomplete)} of {len(rows)} cells lack image or mask: {names}")
        return complete

    def _report_missing_specimens(self, split: str, present: set[int]) -> None:
        expected = layout.SPECIMENS[split]
        missing = [f"{number:02d}" for number in expected if number not in present]
        line = f"split {split}: {len(expected) - len(missing)} of {len(expected)} specimens found"
        if len(missing) == len(expected):
            self.report_missing(f"{line}, not built")
        elif missing:
            self.report_missing(f"{line}, missing {', '.join(missing)}")

    def _report_left_out(self, files: layout.SpecimenFiles, why: str, numbers: Iterable[int]) -> None:
        if numbers := sorted(numbers):
            names = shorten([f"{number:03d}" for number in numbers], _MAX_NAMES)
            self.report_missing(
                f"{layout.specimen_id(files.specimen)}: {len(numbers)} objects {why}, left out: {names}"
            )


def _cell_features() -> dict[str, Any]:
    return {
        "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png"),
        "mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
        "pattern": tfds.features.ClassLabel(names=layout.PATTERNS),
        "intensity": tfds.features.ClassLabel(names=layout.INTENSITIES),
        "specimen_id": tfds.features.Text(),
        "cell_id": np.int32,
        "set": tfds.features.ClassLabel(names=tuple(layout.CONTEST_SETS.values())),
    }


def paint_objects(masks: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Instance mask, uint16 [height, width]: 0 background, k the k-th of `masks` (bool [height, width]).

    Objects overlap. They are painted in order of descending area, so that a small object stays visible on a large one;
    of two objects of equal area, the later is on top.
    """
    instances = np.zeros(shape, np.uint16)
    areas = [int(mask.sum()) for mask in masks]
    for index in sorted(range(len(masks)), key=lambda i: -areas[i]):
        instances[masks[index]] = index + 1
    return instances


def _class_mask(instances: np.ndarray, rows: Sequence[layout.ObjectRow], pattern: str) -> np.ndarray:
    """uint8 [height, width]: 1 + index of the pattern on cells and mitotic cells, void on artefacts, otherwise 0."""
    cell = 1 + layout.PATTERNS.index(pattern)
    classes = [0] + [fields.VOID if row.kind == "artefact" else cell for row in rows]
    return np.array(classes, np.uint8)[instances]


def _cell(row: layout.CellRow) -> dict[str, Any]:
    """One contest cell: the crop and its mask, which is 255 on the cell."""
    assert row.image is not None
    assert row.mask is not None
    image = pixels.read_colour(row.image)
    mask = pixels.read_mask(row.mask, image.shape[:2])
    return {
        "image": pixels.encode_png(image),
        "mask": pixels.encode_png(np.where(mask, np.uint8(255), np.uint8(0))),
        "pattern": row.pattern,
        "intensity": row.intensity,
        "specimen_id": layout.specimen_id(row.specimen),
        "cell_id": row.number,
        "set": row.contest_set,
    }


def _specimen_sources(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for specimens in layout.find_specimens(root).values():
        for files in specimens:
            yield from (files.image, files.table, *files.masks.values())


def _cell_sources(root: pathlib.Path) -> Iterator[pathlib.Path]:
    yield layout.contest_table(root)
    for rows in layout.find_cells(root).values():
        yield from (path for row in rows for path in (row.image, row.mask) if path is not None)
