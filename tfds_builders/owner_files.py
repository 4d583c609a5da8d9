"""Code shared by the builders of data sets that their owners distribute: the owner's directory, missing files."""

import abc
import os
import pathlib
from collections.abc import Callable, Mapping

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders.records import ArrayRecordBuilder


class OwnerFilesBuilder(ArrayRecordBuilder, skip_registration=True):
    """A builder of a data set that is distributed by its owner.

    `info.metadata` holds lists of lines that are stored with the data set; `missing` lists what was missing.
    """

    @abc.abstractmethod
    def source_files(self, manual_dir: str | os.PathLike) -> Mapping[str, pathlib.Path]:
        """Every file that a build would read, by its path relative to `manual_dir` or to the owner's top directory."""

    @property
    def metadata_lists(self) -> dict[str, list]:
        """The lists of `info.metadata`."""
        metadata = self.info.metadata
        assert isinstance(metadata, dict)
        return metadata

    def owner_dir(
        self, dl_manager: tfds.download.DownloadManager, absence: Callable[[pathlib.Path], str]
    ) -> pathlib.Path:
        """The owner's directory. This is called when a build starts, and clears the lists of an earlier one.

        Raises:
            FileNotFoundError: the directory is absent or empty; the message is `absence` of the directory.
        """
        for lines in self.metadata_lists.values():
            lines.clear()
        try:
            return pathlib.Path(os.fspath(dl_manager.manual_dir))
        except AssertionError as error:  # raised by TFDS if the directory is absent or empty
            raise FileNotFoundError(absence(pathlib.Path(str(dl_manager._manual_dir)))) from error

    def report_missing(self, *lines: str) -> None:
        """Store lines on what is missing with the data set, and log them."""
        assert self.builder_config is not None  # TFDS takes the first of BUILDER_CONFIGS where none is named
        self.metadata_lists["missing"] += lines
        for line in lines:
            logging.warning("%s/%s: %s", self.name, self.builder_config.name, line)


def empty_lists(*names: str) -> tfds.core.MetadataDict:
    """Metadata of a data set before it is built."""
    return tfds.core.MetadataDict({name: [] for name in names})


def shorten(names: list[str], limit: int) -> str:
    """The first `limit` names, and the number of the others."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
