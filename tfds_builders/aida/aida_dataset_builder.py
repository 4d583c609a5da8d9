"""TFDS builder of AIDA_HEp-2, from the owners' images and table."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import pixels
from tfds_builders.aida import layout, terms
from tfds_builders.owner_files import OwnerFilesBuilder, empty_lists


class Builder(OwnerFilesBuilder):
    """Images, each with the consensus patterns on which three physicians agree: zero, one or several.

    All are in the split `train`. `info.metadata` has lists of lines: `missing` lists what was missing, `notes` explains
    how the table was read.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Patient and intensity are found by the names and values of their columns."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="images", description="The 2,080 images of 1,000 patients.")]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Register at {layout.HOME_PAGE}, download AIDA_HEp-2, unpack it, and name the directory that holds "
        f"{layout.TABLE_NAME}.xls and the images."
    )

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir`."""
        top = pathlib.Path(manual_dir)
        return {path.relative_to(top).as_posix(): path for path in layout.source_files(top)}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png"),
            "patterns": tfds.features.Sequence(tfds.features.ClassLabel(names=terms.CODES)),
            "patterns_known": np.bool_,
            "intensity": tfds.features.ClassLabel(names=layout.INTENSITIES),
            "specimen_id": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=layout.HOME_PAGE,
            disable_shuffling=True,  # the order of the table
            metadata=empty_lists("missing", "notes"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        contents = layout.read_contents(self.owner_dir(dl_manager, layout.absence))
        self.report_missing(*contents.missing)
        self.metadata_lists["notes"] += contents.notes
        return {"train": self._generate_examples(contents.images)}

    def _generate_examples(self, images: Sequence[layout.Image]) -> Iterator[tuple[str, dict[str, Any]]]:
        for image in images:
            yield image.path.name, _example(image)


def _example(image: layout.Image) -> dict[str, Any]:
    return {
        "image": pixels.encode_png(pixels.read_any(image.path)),
        "patterns": list(image.patterns),
        "patterns_known": image.patterns_known,
        "intensity": image.intensity,
        "specimen_id": image.specimen_id,
        "name": image.path.name,
    }
