"""What builders of sets that their owners distribute share: finding the owner's directory, saying what is not there."""

import abc
import os
import pathlib
from collections.abc import Callable, Mapping

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders.records import ArrayRecordBuilder


class OwnerFilesBuilder(ArrayRecordBuilder, skip_registration=True):
    """A builder of a set that its owner distributes.

    `info.metadata` holds lists of lines that are kept with the data: `missing` says what was not there.
    """

    @abc.abstractmethod
    def source_files(self, manual_dir: str | os.PathLike) -> Mapping[str, pathlib.Path]:
        """Every file that would be read, by its path relative to `manual_dir` or to the top of the owner's tree."""

    @property
    def kept(self) -> dict[str, list]:
        """The lists of `info.metadata`."""
        metadata = self.info.metadata
        assert isinstance(metadata, dict)
        return metadata

    def owner_dir(
        self, dl_manager: tfds.download.DownloadManager, absence: Callable[[pathlib.Path], str]
    ) -> pathlib.Path:
        """The owner's directory, for a build that starts: what an earlier one kept is forgotten.

        Raises:
            FileNotFoundError: It is absent or empty; with the line `absence`.
        """
        for lines in self.kept.values():
            lines.clear()
        try:
            return pathlib.Path(os.fspath(dl_manager.manual_dir))
        except AssertionError as error:  # TFDS's own way to say so
            raise FileNotFoundError(absence(pathlib.Path(str(dl_manager._manual_dir)))) from error

    def say_missing(self, *lines: str) -> None:
        """Keep lines on what is missing with the data, and log them."""
        assert self.builder_config is not None  # TFDS takes the first of BUILDER_CONFIGS where none is named
        self.kept["missing"] += lines
        for line in lines:
            logging.warning("%s/%s: %s", self.name, self.builder_config.name, line)


def empty_lists(*names: str) -> tfds.core.MetadataDict:
    """Metadata of a set before it is built."""
    return tfds.core.MetadataDict({name: [] for name in names})


def shorten(names: list[str], limit: int) -> str:
    """The first `limit` names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
