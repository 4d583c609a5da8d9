"""TFDS builder of the I3A Task 2 specimens (ICPR 2014, ICPR 2016), from the organisers' files."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import fields, pixels, tables
from tfds_builders.icpr2014_task2 import layout
from tfds_builders.owner_files import OwnerFilesBuilder, empty_lists


class Builder(OwnerFilesBuilder):
    """Images of specimens, four of each, with the mask of their objects; one example is one image.

    All are in the split `train`; the test set of the contests was never published. `info.metadata["missing"]` is a list
    of lines on what was missing.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Objects are the connected regions of the mask."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="specimens", description="The 1,008 images of 252 specimens.")]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Ask the organisers for the training set of Task 2 ({layout.HOME_PAGE}, hep2benchmarking@gmail.com), unpack "
        "it, and name the directory that holds its images and tables."
    )

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir`."""
        top = pathlib.Path(manual_dir)
        return {path.relative_to(top).as_posix(): path for path in layout.source_files(top)}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(fields.features(layout.PATTERNS, tables.INTENSITIES)),
            homepage=layout.HOME_PAGE,
            disable_shuffling=True,  # the order of ids, in which the fields of a specimen are neighbours
            metadata=empty_lists("missing"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        contents = layout.read_contents(self.owner_dir(dl_manager, layout.absence))
        self.report_missing(*contents.missing)
        return {"train": self._generate_examples(contents.fields)}

    def _generate_examples(self, fields_of_set: Sequence[layout.Field]) -> Iterator[tuple[str, dict[str, Any]]]:
        for field in fields_of_set:
            yield field.key, self._example(field)

    def _example(self, field: layout.Field) -> dict[str, Any]:
        image = pixels.read_grey(field.image)
        mask = pixels.read_mask(field.mask, image.shape, may_be_empty=True)
        if not mask.any():
            self.report_missing(f"{field.key}: its mask is empty, so it holds no cell")
        instances = connected_objects(mask)
        label = 1 + layout.PATTERNS.index(field.pattern)
        return {
            "image": pixels.encode_png(image),
            "instance_mask": pixels.encode_png(instances),
            "class_mask": pixels.encode_png(np.where(mask, np.uint8(label), np.uint8(0))),
            "pattern": field.pattern,
            "intensity": field.intensity,
            "specimen_id": field.specimen_id,
            "field": field.number,
            "objects": [{"instance": k, "kind": "cell"} for k in range(1, 1 + int(instances.max()))],
        }


def connected_objects(mask: np.ndarray) -> np.ndarray:
    """The 8-connected regions of a mask, numbered from 1 in scan order, uint16 [height, width].

    Touching cells form one region.
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    assert count <= 1 + np.iinfo(np.uint16).max
    return labels.astype(np.uint16)
