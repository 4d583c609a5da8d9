"""TFDS builder of the SNPHEp-2 cells, from an index of the owner's files."""

import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import cells
from tfds_builders.owner_files import OwnerFilesBuilder
from tfds_builders.snphep2 import layout


class Builder(OwnerFilesBuilder):
    """Grey cells with their masks, and the split of each in the five published folds.

    All cells are in the TFDS split `train`; `fold_sides` holds the published splits. `info.metadata` has lists of
    lines, `missing` on what was missing and `notes` on what a user must know, and `repeated_specimens`, pairs of names
    of specimens that share cells.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Read by an index, for the archive's own layout has not been seen."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="cells", description="The 1,884 cells of 40 specimens.")]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Ask the owners for SNPHEp-2 ({layout.HOME_PAGE}, a.wiliem@uq.edu.au), unpack it, write an index of its files "
        "as tfds_builders/snphep2/README.md says, and name the directory that holds the index."
    )

    def source_files(self, manual_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir`."""
        top = pathlib.Path(manual_dir)
        return {path.relative_to(top).as_posix(): path for path in layout.source_files(layout.find_tree(top))}

    def _info(self) -> tfds.core.DatasetInfo:
        sides = tfds.features.Tensor(shape=(layout.NUM_FOLDS,), dtype=np.int8)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({**cells.features(layout.PATTERNS), "fold_sides": sides}),
            homepage=layout.HOME_PAGE,
            disable_shuffling=True,  # the order of the index
            metadata=cells.empty_metadata(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, cells.KeyedExamples]:
        tree = layout.find_tree(self.owner_dir(dl_manager, layout.absence))
        contents = layout.read_contents(tree)
        if not contents.cells:
            raise FileNotFoundError(f"{tree.index}: none of the images that it names exists")
        crops = [cells.read(cell) for cell in contents.cells]
        cells.record(self, missing=contents.missing, notes=[], crops=crops)
        return {"train": self._generate_examples(crops, contents.splits)}

    def _generate_examples(self, crops: list[cells.Crop], splits: layout.Splits) -> cells.KeyedExamples:
        for crop in crops:
            fold_sides = np.array(layout.fold_sides(crop.cell, splits), np.int8)
            yield crop.cell.key, {**crop.example, "fold_sides": fold_sides}
