"""The work directory: whether it belongs to a run and fits the configuration, and the files written into it."""

import dataclasses
import json
import math
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import filelock
from tensorboardX import SummaryWriter

from hep2jax import config as configs
from hep2jax import files
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.progress import warn
from hep2jax.specimens.nuclear_size import NuclearSize

CONFIG = "config.json"
CLASSES = "classes.json"
METRICS = "metrics.jsonl"
TRAINED_ON = "trained_on.json"
NUCLEAR_SIZE = "nuclear_size.json"
_LOCK = ".lock"
PROFILE = "profile"
"""Folder that the modes profile and compile write, before a run or after it."""


def lock(directory: pathlib.Path) -> filelock.BaseFileLock:
    """Create the work directory where it is missing, and keep other runs out of it until the lock is released.

    The lock is the operating system's, so that it ends with the process. It holds between hosts if the file system
    supports that (NFS does by default).

    Raises:
        UsageError: another run has the lock, or the directory cannot be written or holds files of something else.
    """
    _claim(directory)
    held = filelock.FileLock(directory / _LOCK)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UsageError(
            f"--workdir={directory}: another run is training in it; choose another work directory"
        ) from error
    except (OSError, NotImplementedError):  # only `acquire` finds out that a file system has no locks
        warn(f"--workdir={directory}: its file system has no locks; do not start a second run in it")
    return held


def _claim(directory: pathlib.Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        other_files = sorted(p.name for p in directory.iterdir() if p.name not in (PROFILE, _LOCK))
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(f"--workdir={directory}: cannot be written ({error.strerror}); choose another") from error
    if other_files and not (directory / CONFIG).exists():
        raise UsageError(
            f"--workdir={directory}: holds files that hep2jax did not write ({other_files[0]}, ...); choose an empty "
            "directory"
        )


def open_for_training(directory: pathlib.Path, config: Config) -> None:
    """Create the work directory, or check that it belongs to this run; then write `config.json`.

    Raises:
        UsageError: the directory cannot be written, or it holds files of something else or of another run.
    """
    _claim(directory)
    if _has_checkpoint(directory):  # otherwise nothing was trained yet, and the configuration may be corrected
        _check_same_run(directory, config)
    configs.save(config, directory / CONFIG)


def check_same_data(directory: pathlib.Path, fingerprint: str) -> None:
    """Save the fingerprint of the data that a run is trained on (see `Task.fingerprint`).

    Raises:
        UsageError: the checkpoint in the directory was trained on other data.
    """
    if _has_checkpoint(directory) and trained_on(directory) != fingerprint:
        raise UsageError(
            f"--workdir={directory}: its checkpoint was trained on other data: pixels, labels or specimens of the "
            "training split differ (--mode=evaluate measures it on any data); choose another work directory"
        )
    files.write_json(directory / TRAINED_ON, fingerprint)


def trained_on(directory: pathlib.Path) -> Any:
    """The fingerprint that `check_same_data` saved; None if there is none. Raises UsageError if it cannot be read."""
    try:
        return files.read_json(directory / TRAINED_ON)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{error}; choose another work directory") from error


def open_for_reading(directory: pathlib.Path, key: str = "--workdir") -> Config:
    """The configuration of a finished or unfinished run. `key` is the option that names it.

    Raises:
        UsageError: the directory holds no run, or its configuration cannot be read.
    """
    if not (directory / CONFIG).is_file():
        raise UsageError(f"{key}={directory}: holds no run ({CONFIG} is missing); train first or name another")
    return configs.load(directory / CONFIG)


def write_classes(directory: pathlib.Path, classes: Sequence[str]) -> None:
    """Save the names of the patterns, in the order of the network's output channels."""
    files.write_json(directory / CLASSES, list(classes))


def read_classes(directory: pathlib.Path) -> tuple[str, ...]:
    """The names that `write_classes` saved; raises UsageError if they cannot be read."""
    try:
        names = files.read_json(directory / CLASSES)
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory / CLASSES}: cannot be read ({error}); train in a new directory") from error
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise UsageError(f"{directory / CLASSES}: is not a list of names of patterns; train in a new directory")
    return tuple(names)


def write_nuclear_size(directory: pathlib.Path, size: NuclearSize) -> None:
    """Save how large the cells of the training images are."""
    files.write_json(directory / NUCLEAR_SIZE, dataclasses.asdict(size))


def read_nuclear_size(directory: pathlib.Path) -> NuclearSize | None:
    """What `write_nuclear_size` saved; None if there is nothing, or nothing that can be used."""
    saved = files.kept(directory / NUCLEAR_SIZE)
    numbers: dict[str, Any] = {field.name: saved.get(field.name) for field in dataclasses.fields(NuclearSize)}
    unusable = {name for name, value in numbers.items() if not (isinstance(value, float) and 0 < value < math.inf)}
    if unusable - {"nuclear_diameter"} or unusable and numbers["nuclear_diameter"] is not None:
        return None
    return NuclearSize(**numbers)


def check_same_network(directory: pathlib.Path, saved: Config, config: Config) -> None:
    """Raise UsageError if `config` describes another network than the work directory holds."""
    for field in ("name", "width"):
        configured, trained = getattr(config.model, field), getattr(saved.model, field)
        if configured != trained:
            raise UsageError(
                f"--workdir={directory}: its checkpoint is of another architecture: model.{field} is {trained} there "
                f"and {configured} in the configuration"
            )


def _has_checkpoint(directory: pathlib.Path) -> bool:
    return any(path.name.isdigit() for path in (directory / "checkpoints").glob("*"))


def _check_same_run(directory: pathlib.Path, config: Config) -> None:
    saved = open_for_reading(directory)
    check_same_network(directory, saved, config)
    different = configs.changed_keys(saved, config)
    if different:
        key, old, new = different[0]
        raise UsageError(
            f"--workdir={directory}: belongs to another run: {key} was {old!r} and is now {new!r}"
            f"{f' ({len(different)} keys differ)' if len(different) > 1 else ''}; choose another work directory"
        )


@dataclasses.dataclass
class MetricsWriter:
    """Appends to `metrics.jsonl` and TensorBoard. Lines after `first_step`, left by a killed run, are removed."""

    directory: pathlib.Path
    first_step: int
    enabled: bool = True

    def __post_init__(self) -> None:
        if not self.enabled:
            return
        path = self.directory / METRICS
        lines = [line for line, step in _complete_lines(path) if step <= self.first_step]
        path.write_text("".join(line + "\n" for line in lines))
        self._file = path.open("a")
        self._board = SummaryWriter(str(self.directory), purge_step=self.first_step, flush_secs=10)

    def write(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Write one line, and one TensorBoard point for each number in it."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both files."""
        if self.enabled:
            self._file.close()
            self._board.close()


def _complete_lines(path: pathlib.Path) -> list[tuple[str, int]]:
    """The lines, with their steps, up to the first that is no record: a run that was killed leaves half a line."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    complete: list[tuple[str, int]] = []
    for line in lines:
        try:
            complete.append((line, int(json.loads(line).get("step", 0))))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            break
    return complete
