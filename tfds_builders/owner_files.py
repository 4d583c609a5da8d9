"""What builders of sets that their owners distribute share: finding the owner's directory, short lists of names."""

import os
import pathlib
from collections.abc import Callable

import tensorflow_datasets as tfds


def manual_dir(dl_manager: tfds.download.DownloadManager, absence: Callable[[pathlib.Path], str]) -> pathlib.Path:
    """The owner's directory; FileNotFoundError with the line `absence` if it is absent or empty."""
    try:
        return pathlib.Path(os.fspath(dl_manager.manual_dir))
    except AssertionError as error:  # TFDS's own way to say so
        raise FileNotFoundError(absence(pathlib.Path(str(dl_manager._manual_dir)))) from error


def shorten(names: list[str], limit: int) -> str:
    """The first `limit` names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
