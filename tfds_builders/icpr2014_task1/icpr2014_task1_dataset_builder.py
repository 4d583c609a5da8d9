"""TFDS builder of the I3A Task 1 cells (ICIP 2013, ICPR 2014, ICPR 2016), from any of the public copies."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import cells
from tfds_builders.icpr2014_task1 import layout
from tfds_builders.owner_files import OwnerFilesBuilder

RESIZED_SHAPE = (78, 78)
"""Height and width of every cell in the stretched public copy."""
_NATIVE_RANGE = (9, 254)  # lowest and highest grey level of the 13,596 native cells


class Builder(OwnerFilesBuilder):
    """Grey cells with their masks, in the order of their ids.

    `info.metadata` has lists of lines, `missing` on what was missing and `notes` on what a user must know, and
    `repeated_specimens`, pairs of names of specimens that share cells.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Class folders, flat folder or split folders; one copy, never a mixture."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="cells", description="The 13,596 cells of the training set.")]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Ask the organisers for the training set of Task 1 ({layout.HOME_PAGE}, hep2benchmarking@gmail.com), unpack "
        f"it, and name the directory that holds its class folders or its cells with {layout.LABELS_NAME}."
    )

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir`."""
        top = pathlib.Path(manual_dir)
        return {path.relative_to(top).as_posix(): path for path in layout.source_files(layout.find_copy(top))}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(cells.features(layout.PATTERNS)),
            homepage=layout.HOME_PAGE,
            disable_shuffling=True,  # the order of ids, in which the cells of a specimen are neighbours
            metadata=cells.empty_metadata(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, cells.KeyedExamples]:
        copy = layout.find_copy(self.owner_dir(dl_manager, layout.absence))
        contents = layout.read_contents(copy)
        if not contents.cells:
            raise ValueError(f"{copy.labels}: none of its rows has an image in '{copy.root}'")
        crops = [cells.read(cell) for cell in contents.cells]
        notes = [*contents.notes, copy_note(crops)]
        cells.record(self, missing=contents.missing, notes=notes, crops=crops)
        by_split = {split: [crop for crop in crops if crop.cell.split == split] for split in layout.SPLITS}
        return {split: self._generate_examples(members) for split, members in by_split.items() if members}

    def _generate_examples(self, crops: Sequence[cells.Crop]) -> cells.KeyedExamples:
        for crop in crops:
            yield crop.cell.key, crop.example


def copy_note(crops: Sequence[cells.Crop]) -> str:
    """What a user must know about the copy of the data set; raises ValueError if the cells are from two copies.

    In the stretched public copy, every cell is resized to 78 x 78 pixels without keeping the aspect ratio, and its grey
    levels range from about 0 to 255. Native cells are 54 to 111 pixels high and wide, with grey levels from 9 to 254.
    """
    stretched = next((crop.cell for crop in crops if is_stretched(crop.image)), None)
    native = next((crop.cell for crop in crops if crop.image.shape != RESIZED_SHAPE), None)
    if stretched and native:
        raise ValueError(
            f"icpr2014_task1: {stretched.image} is from the copy that is resized to 78 x 78 pixels and stretched, but "
            f"{native.image} is not; the two copies must not be mixed, so restore one of them"
        )
    if stretched:
        return (
            "this copy is resized to 78 x 78 pixels and its grey levels are stretched in each cell: absolute intensity "
            "and size are lost; do not mix it with a native-size copy (in public ones nuclear_membrane is turned by 90 "
            "degrees)"
        )
    return (
        "public native-size copies differ in the orientation of nuclear_membrane, which some turn by 90 degrees "
        "against the other patterns: do not mix copies, and train with all eight orientations"
    )


def is_stretched(image: np.ndarray) -> bool:
    """Whether a cell can only be from the stretched copy: it has its size, and grey levels that no native cell has."""
    low, high = _NATIVE_RANGE
    return image.shape == RESIZED_SHAPE and bool(image.min() < low or image.max() > high)
