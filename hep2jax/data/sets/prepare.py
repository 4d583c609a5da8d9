"""Prepared data sets on disk: built once by their TFDS builder, and built again when the owner's files have changed.

This module does not decode pixels; `fields`, `cells` and `images` read the data sets that it has prepared.
"""

import contextlib
import difflib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import filelock
import tensorflow_datasets as tfds
from absl import logging

from hep2jax import files, remote
from hep2jax.errors import UsageError
from tfds_builders import BUILDERS
from tfds_builders.folder import pictures

_SOURCE_FILE = "source.json"
_INFO = "dataset_info.json"
_CACHE = pathlib.Path.home() / ".cache" / "hep2jax" / "data"
_TABLE_SUFFIXES = (".csv", ".xls", ".xlsx")


def resolve_data_dir(data_dir: str | None) -> pathlib.Path:
    """Directory of the prepared data sets: `data_dir`, otherwise $TFDS_DATA_DIR, otherwise ~/tensorflow_datasets."""
    return pathlib.Path(_named(data_dir)).expanduser().absolute()


def _place(name: str, manual_dir: str | None) -> str:
    """Where below the data directory a data set is kept: each folder of a user's own has a place there."""
    if not BUILDERS[name].belongs_to_user:
        return ""
    if not manual_dir:
        raise UsageError(f"the data set '{name}' needs --manual_dir=DIR (--config.data.manual_dir=DIR), your folder")
    folder = remote.local_folder(manual_dir, "data.manual_dir").resolve()
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return f"folders/{re.sub(r'[^a-zA-Z0-9_-]', '_', folder.name)[:40]}-{digest}"


def _named(data_dir: str | None) -> str:
    return data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def prepare(
    name: str, builder_config: str = "", data_dir: str | None = None, manual_dir: str | None = None
) -> tfds.core.DatasetBuilder:
    """Return a builder of a data set that is on disk; the data set is built first if it is absent.

    If several runs need the data set, one builds it and the others wait. A data set with a `manual_dir` is built again
    if the files there (names, sizes, contents of the tables) are not those from which it was built. The old one is
    replaced only after the new build is complete. Without `manual_dir`, a prepared data set is used as it is.

    A prepared data set in object storage is copied to `~/.cache/hep2jax/data` and used as it is; a copy is used again
    if its files have the same names and sizes.

    Folders of users' own (`belongs_to_user` of the builder) are kept apart, below `folders/` of the data directory.

    Args:
        name: one of `tfds_builders.BUILDERS`.
        builder_config: named configuration of the builder; empty: its first.
        data_dir: see `resolve_data_dir`.
        manual_dir: directory of the owner's files, for data sets that need a licence; or the user's own folder.

    Raises:
        UsageError: the name or the configuration is unknown, a file of the owner is missing or damaged (the message
            names it), `data_dir` is full or cannot be written, or it is in object storage and holds no such data set.
    """
    make, config = _load_builder(name, builder_config)
    place = _place(name, manual_dir)
    if remote.is_url(named := _named(data_dir)):
        with _as_usage_errors(_CACHE), _quiet():
            return make(config=config, data_dir=_fetched(make, config, f"{named}/{place}".rstrip("/")))
    root = resolve_data_dir(data_dir) / place
    with _as_usage_errors(root), _quiet():
        builder = make(config=config, data_dir=root)
        given = manual_dir and remote.local_folder(manual_dir, "data.manual_dir").absolute()
        manual = given if given and _needs_manual(builder) else None
        source = _fingerprint(builder, manual) if manual else None
        if _is_current(builder, source):
            return make(config=config, data_dir=root)  # a new one: another run may have finished after `builder` looked
        if _needs_manual(builder) and manual is None:
            raise UsageError(_not_prepared_message(builder))
        with _lock(root / f".{name}-{config}.lock", f"{name}/{config}"):
            if not _is_current(make(config=config, data_dir=root), source):
                _build(make, config, root, manual, source)
        return make(config=config, data_dir=root)


def configurations(name: str) -> list[str]:
    """Names of a data set's configurations; the first is the default."""
    if name not in BUILDERS:
        raise UsageError(f"unknown data set '{name}': must be one of {', '.join(BUILDERS)}")
    return [config.name for config in BUILDERS[name].BUILDER_CONFIGS]


def features(name: str, builder_config: str = "") -> Any:
    """The TFDS features of a data set, whether it is prepared or not.

    Raises:
        UsageError: the name or the configuration is unknown.
    """
    make, config = _load_builder(name, builder_config)
    with _quiet(), tempfile.TemporaryDirectory() as empty:
        return make(config=config, data_dir=empty).info.features


def patterns(
    name: str, builder_config: str = "", data_dir: str | None = None, manual_dir: str | None = None
) -> tuple[str, ...]:
    """The patterns of a data set of one pattern for each example, in the order of their labels.

    Only a folder of the user's own is prepared for this if it is not yet, because its table names them.
    """
    label = features(name, builder_config)["pattern"]
    if label.num_classes is None:
        found: Any = prepare(name, builder_config, data_dir, manual_dir).info.features
        label = found["pattern"]
    return tuple(label.names)


def missing(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lines on what was missing from the owner's directory when the data set was built; empty if nothing was."""
    return _lines(builder, "missing")


def notes(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lines on what a user of the data set must know; empty if there are none."""
    return _lines(builder, "notes")


def _lines(builder: tfds.core.DatasetBuilder, name: str) -> list[str]:
    metadata = builder.info.metadata
    return list(metadata.get(name, ())) if isinstance(metadata, dict) else []


def survey(name: str, builder_config: str, manual_dir: str | None) -> pictures.Survey:
    """What reading every file of a user's own folder shows; nothing is built.

    Raises:
        UsageError: there is no such folder, or its table cannot be read at all.
    """
    _place(name, manual_dir)
    assert manual_dir is not None
    make, config = _load_builder(name, builder_config)
    folder = remote.local_folder(manual_dir, "data.manual_dir").absolute()
    with _as_usage_errors(folder), _quiet(), tempfile.TemporaryDirectory() as empty:
        return make(config=config, data_dir=empty).survey(folder)


def count(builder: tfds.core.DatasetBuilder) -> dict[str, tuple[int, int]]:
    """Numbers of examples and of specimens in each split, counted by reading the records."""
    features: Any = builder.info.features
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    raw = dict.fromkeys(images, tfds.decode.SkipDecoding())
    open_split: Any = builder.as_data_source  # TFDS's decorator hides its signature
    counts = {}
    for split in builder.info.splits:
        specimens = [example["specimen_id"] for example in open_split(split, decoders=raw)]
        counts[split] = (len(specimens), len(set(specimens)))
    return counts


def _load_builder(name: str, config: str) -> tuple[Any, str]:
    """A function that makes the builder, with ArrayRecord as file format, and the validated configuration name."""
    known = configurations(name)
    builder_class = BUILDERS[name]
    config = config or known[0]
    if config not in known:
        near = difflib.get_close_matches(config, known, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"{name} has no configuration '{config}': must be one of {', '.join(known)}; the nearest is '{near}'"
        )

    def make(**kwargs: Any) -> tfds.core.DatasetBuilder:
        return builder_class(file_format="array_record", **kwargs)

    return make, config


def _needs_manual(builder: tfds.core.DatasetBuilder) -> bool:
    return builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None


def _not_prepared_message(builder: tfds.core.DatasetBuilder) -> str:
    instructions = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    return (
        f"{builder.info.full_name} is not prepared in '{builder.data_dir}', and no manual_dir is given "
        f"(--manual_dir=DIR, or --config.data.manual_dir=DIR). {instructions}"
    )


def _fingerprint(builder: tfds.core.DatasetBuilder, manual_dir: pathlib.Path) -> dict[str, Any]:
    """Fingerprint of the owner's files: relative names and sizes of all files, and contents of the tables.

    Modification times do not count, because a copy of the same archive holds the same data. In a folder of the user's
    own the contents of all files count, because an edited mask often keeps its size.
    """
    digest = hashlib.sha256()
    all_contents = BUILDERS[builder.name].belongs_to_user
    files: dict[str, pathlib.Path] = builder.source_files(manual_dir)  # pyright: ignore[reportAttributeAccessIssue]
    for name in sorted(files):
        digest.update(f"{name}\0{files[name].stat().st_size}\0".encode())
        if all_contents or files[name].suffix.lower() in _TABLE_SUFFIXES:
            with files[name].open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"files": len(files), "sha256": digest.hexdigest()}


def _is_current(builder: tfds.core.DatasetBuilder, source: dict[str, Any] | None) -> bool:
    """Whether a complete data set is on disk and, if `source` is given, was built from these files."""
    directory = pathlib.Path(builder.data_dir)
    if not (directory / _INFO).is_file():
        return False
    recorded = directory / _SOURCE_FILE
    return source is None or files.kept(recorded) == source


def _build(
    make: Any, config: str, root: pathlib.Path, manual: pathlib.Path | None, source: dict[str, Any] | None
) -> None:
    """Build in a staging directory, then move to the final one, so that the final one only ever holds complete data."""
    final = pathlib.Path(make(config=config, data_dir=root).data_dir)
    staging = root / f".preparing-{final.parent.parent.name}-{config}"
    shutil.rmtree(staging, ignore_errors=True)  # left by a run that was killed; no other can, because we hold the lock
    print(_announcement(final, root, manual), file=sys.stderr, flush=True)
    try:
        builder = make(config=config, data_dir=staging)
        settings = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        builder.download_and_prepare(download_dir=staging / "downloads", download_config=settings)
        built = pathlib.Path(builder.data_dir)
        if source is not None:
            (built / _SOURCE_FILE).write_text(json.dumps(source) + "\n")
        _replace(final, built, staging / "replaced")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetched(make: Any, config: str, url: str) -> pathlib.Path:
    """The local folder of prepared data sets to which this one is copied from object storage."""
    store, path = remote.connect(url, "data.data_dir")
    root = _CACHE / hashlib.sha256(f"{store.protocol}:{path}".encode()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as empty:  # because a builder reads the data set that it finds
        part = pathlib.Path(make(config=config, data_dir=empty).data_dir).relative_to(empty).as_posix()
    final = root / part
    with _lock(root / f".{part.replace('/', '-')}.lock", part), remote.reported(f"data.data_dir={url}"):
        sizes = remote.listing(store, f"{path}/{part}")
        if _INFO not in sizes:
            raise UsageError(f"holds no {part}; prepare it on disk, then copy the folder there")
        if any(_size(final / name) != size for name, size in sizes.items()):
            print(f"copying {part} from {url} into {root}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=root) as staging:
                remote.fetch(store, f"{path}/{part}", sizes, pathlib.Path(staging, "new"))
                _replace(final, pathlib.Path(staging, "new"), pathlib.Path(staging, "old"))
    return root


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _announcement(final: pathlib.Path, root: pathlib.Path, manual: pathlib.Path | None) -> str:
    origin = f" from {manual}" if manual else ""
    return f"preparing {final.parent.parent.name}/{final.parent.name}{origin} into {root}"


def _replace(final: pathlib.Path, built: pathlib.Path, attic: pathlib.Path) -> None:
    """Move `built` to `final`; an old data set is first moved to `attic`, which is on the same file system."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(attic)
    built.rename(final)


@contextlib.contextmanager
def _lock(path: pathlib.Path, what: str) -> Iterator[None]:
    """Hold a lock between processes; if another process holds it, print a line and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        print(f"waiting for another run that prepares {what}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the announcements, progress bars and informational log lines of TFDS off the terminal."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(min(verbosity, logging.WARNING))
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _as_usage_errors(data_dir: pathlib.Path) -> Iterator[None]:
    """Turn errors that a user can correct into a `UsageError` of one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        line = _explain(error, data_dir)
        if line is None:
            raise
        raise UsageError(line) from error


def _explain(error: Exception, data_dir: pathlib.Path) -> str | None:
    """One line for an error that a user can correct; None for any other."""
    text = " ".join(str(error).split())
    if files.is_disk_full(error):
        return f"no space left for prepared data in '{data_dir}'; free some, or name another data_dir"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"cannot read or write '{error.filename or data_dir}' ({error.strerror}); correct that, "
            "or name another data_dir or manual_dir"
        )
    if isinstance(error, FileNotFoundError | ValueError):  # raised by a builder, with a message for the user
        return text
    return None
