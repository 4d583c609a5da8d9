"""TFDS builder of a user's own folder: images with masks and a table of their labels."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import cells, fields, pixels, tables
from tfds_builders.folder import layout, pictures
from tfds_builders.owner_files import OwnerFilesBuilder, empty_lists


class Builder(OwnerFilesBuilder):
    """Images of a user, one example for each row of `labels.csv`, in its order.

    The patterns are those of the table, in alphabetical order; they are stored with the prepared data set, so
    `info.features["pattern"]` has no names before. `info.metadata["notes"]` is a list of lines on what a user must
    know. A field without a mask has no object, and a class mask that is `fields.VOID` everywhere.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=layout.SPECIMENS, description="Fields of specimens; masks show their cells."),
        tfds.core.BuilderConfig(name=layout.CELLS, description="Crops of single cells."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Name a folder that holds {layout.TABLE}, as tfds_builders/folder/README.md describes it."
    )
    belongs_to_user = True

    @property
    def kind(self) -> str:
        """`layout.SPECIMENS` or `layout.CELLS`."""
        assert self.builder_config is not None
        return self.builder_config.name

    def survey(self, manual_dir: str | os.PathLike) -> pictures.Survey:
        """Read every file without building anything."""
        return pictures.survey(pathlib.Path(manual_dir), self.kind)

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir`."""
        top = pathlib.Path(manual_dir).resolve()
        paths = [path for row in self._contents(top).rows for path in (row.image, row.mask) if path]
        return {path.relative_to(top).as_posix(): path for path in (top / layout.TABLE, *paths)}

    def _contents(self, folder: pathlib.Path) -> layout.Contents:
        contents = layout.read_contents(folder, self.kind)
        if contents.faults:
            more = f" ({len(contents.faults) - 1} more)" if len(contents.faults) > 1 else ""
            raise ValueError(self._advised(folder, f"{contents.faults[0]}{more}"))
        return contents

    def _advised(self, folder: pathlib.Path, fault: str) -> str:
        check = f"hep2jax prepare --check --name=folder --builder_config={self.kind} --manual_dir=DIR"
        return f"{folder}: {fault}; `{check}` lists every fault"

    def _info(self) -> tfds.core.DatasetInfo:
        if self.kind == layout.CELLS:
            features = cells.features(None, channels=3) | {"name": tfds.features.Text()}
        else:
            features = fields.features(None, tables.INTENSITIES, channels=3)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the order of the table
            metadata=empty_lists("missing", "notes"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = self.owner_dir(dl_manager, layout.absence)
        contents = self._contents(folder)
        self.metadata_lists["notes"] += contents.notes
        features: Any = self.info.features
        features["pattern"].names = list(contents.patterns)
        rows = {split: [row for row in contents.rows if row.split == split] for split in layout.SPLITS}
        numbers = _numbers(contents.rows)
        return {split: self._generate_examples(folder, chosen, numbers) for split, chosen in rows.items() if chosen}

    def _generate_examples(
        self, folder: pathlib.Path, rows: list[layout.Row], numbers: dict[int, int]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            try:
                picture = pictures.read(row, self.kind)
            except ValueError as error:
                raise ValueError(self._advised(folder, str(error))) from error
            cell = self.kind == layout.CELLS
            of_kind = _cell(row, picture) if cell else self._field(row, picture, numbers[row.line])
            yield (
                f"{row.line:08d}",
                {
                    "image": pixels.encode_png(picture.image),
                    "pattern": row.pattern,
                    "intensity": row.intensity,
                    "specimen_id": row.specimen,
                    **of_kind,
                },
            )

    def _field(self, row: layout.Row, picture: pictures.Picture, number: int) -> dict[str, Any]:
        features: Any = self.info.features
        shape = picture.image.shape[:2]
        instances = np.zeros(shape, np.uint16) if picture.instances is None else picture.instances
        label = np.uint8(1 + features["pattern"].str2int(row.pattern))
        background = fields.VOID if picture.instances is None else 0
        return {
            "instance_mask": pixels.encode_png(instances),
            "class_mask": pixels.encode_png(np.where(instances > 0, label, np.uint8(background))),
            "objects": [{"instance": k, "kind": "cell"} for k in range(1, 1 + int(instances.max()))],
            "field": number,
        }


def _cell(row: layout.Row, picture: pictures.Picture) -> dict[str, Any]:
    mask = np.zeros(picture.image.shape[:2], bool) if picture.instances is None else picture.instances > 0
    return {
        "mask": pixels.encode_png(np.where(mask, np.uint8(255), np.uint8(0))),
        "location": cells.NO_LOCATION,
        "cell_id": row.line,
        "name": row.name,
    }


def _numbers(rows: tuple[layout.Row, ...]) -> dict[int, int]:
    """The number of each row, from 0, among those of its specimen."""
    seen: collections.Counter[str] = collections.Counter()
    numbers = {}
    for row in rows:
        numbers[row.line] = seen[row.specimen]
        seen[row.specimen] += 1
    return numbers
