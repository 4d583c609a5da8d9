"""Checkpoints by Orbax: asynchronous saves, retention of the latest and the best, verified restoring onto any mesh.

A checkpoint holds the unpacked state, so that its layout does not depend on how a step packs its arrays. Its metadata
hold the score and, for every array, its shape, dtype and checksum, because the format itself does not notice when
single bytes of an array have changed.
"""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from hep2jax import stopping
from hep2jax.config import TrainConfig
from hep2jax.errors import RunError, UsageError, one_line
from hep2jax.progress import warn
from hep2jax.training import packing
from hep2jax.training import state as states
from hep2jax.training.state import TrainState

DAMAGED = "damaged-checkpoints"
"""Folder, beside that of the checkpoints, to which training moves damaged ones."""

Arrays = dict[str, tuple[tuple[int, ...], str, int]]
"""Shape, dtype and CRC-32 of the bytes of every array of a state, by path."""


class DamagedCheckpointError(RunError):
    """A checkpoint cannot be read, or does not hold what was saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk. Whether its arrays are intact is only known when it is restored."""

    path: pathlib.Path
    step: int
    score: float | None = None
    arrays: Arrays = dataclasses.field(default_factory=dict)
    damage: str = ""
    """Why its metadata cannot be read, if they cannot."""


def find(directory: pathlib.Path) -> list[Checkpoint]:
    """The checkpoints in a folder, newest first."""
    paths = [path for path in directory.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted((_read(path) for path in paths), key=lambda checkpoint: -checkpoint.step)


def best(directory: pathlib.Path) -> list[Checkpoint]:
    """The checkpoints in a folder, highest score first; after them those without a score, newest first.

    Those with damaged metadata come before all, because any of them may be the best: a reader must hear of them.
    """
    return sorted(find(directory), key=lambda c: (not c.damage, c.score is None, -(c.score or 0.0)))


def _read(path: pathlib.Path) -> Checkpoint:
    step = int(path.name)
    try:
        if (path / "metrics").is_dir():
            json.loads((path / "metrics" / "metrics").read_text())  # if one of these is damaged, Orbax opens no folder
        metadata = json.loads((path / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
        arrays = {name: (tuple(shape), dtype, crc) for name, (shape, dtype, crc) in metadata["arrays"].items()}
        return Checkpoint(path=path, step=step, score=metadata["score"], arrays=arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Checkpoint(path=path, step=step, damage=f"its metadata cannot be read: {one_line(error)}")


def restore(checkpoint: Checkpoint, like: TrainState) -> TrainState:
    """The saved state, with the shapes and shardings of `like`, and packed wherever `like` is packed.

    Raises:
        UsageError: the checkpoint is of another architecture; the message names the first array that differs.
        DamagedCheckpointError: the message names the first array that is not as it was saved, or not finite.
    """
    if checkpoint.damage:
        raise DamagedCheckpointError(f"{checkpoint.path} is damaged: {checkpoint.damage}")
    plain = packing.unpack(like)
    _check_structure(checkpoint, plain)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), plain)
    try:
        with stopping.deferred():  # its event loop would report every read that is interrupted
            state = ocp.load(str(checkpoint.path.absolute()), abstract, checkpointable_name="state")
    except Exception as error:  # damaged files make Orbax and its stores raise errors of many types
        raise DamagedCheckpointError(f"{checkpoint.path} is damaged: {one_line(error)}") from error
    for name, leaf in _arrays(state).items():
        if _checksum(leaf) != checkpoint.arrays[name][2]:
            raise DamagedCheckpointError(f"{checkpoint.path} is damaged: '{name}' is not as it was saved")
        if not np.isfinite(leaf.astype(np.float64)).all():
            raise DamagedCheckpointError(f"{checkpoint.path} cannot be used: '{name}' is not finite")
    return packing.like(like, state)


def restore_first(checkpoints: Sequence[Checkpoint], like: TrainState) -> tuple[TrainState, Checkpoint] | None:
    """The state of the first intact checkpoint; None if there are no checkpoints. A warning names each damaged one.

    Raises:
        UsageError: as for `restore`.
        DamagedCheckpointError: all are damaged.
    """
    for checkpoint in checkpoints:
        try:
            return restore(checkpoint, like), checkpoint
        except DamagedCheckpointError as error:
            if checkpoint is checkpoints[-1]:
                raise DamagedCheckpointError(f"{error}; no other checkpoint is left") from error
            warn(f"{error}; another checkpoint is used")
    return None


def resume(directory: pathlib.Path, like: TrainState) -> TrainState | None:
    """The state of the newest intact checkpoint, from which training continues; None if there is no checkpoint.

    Damaged checkpoints that are newer, and those with damaged metadata, are moved to `DAMAGED`: training will save
    their steps again. All processes must call this together; process 0 moves the folders.

    Raises:
        UsageError: as for `restore`.
        DamagedCheckpointError: all are damaged.
    """
    found = find(directory)
    restored = restore_first(found, like)
    if restored is None:
        return None
    state, newest = restored
    if jax.process_index() == 0:
        for checkpoint in found:
            if checkpoint.step > newest.step or checkpoint.damage:
                _set_aside(checkpoint.path)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are moved")
    return state


def _set_aside(path: pathlib.Path) -> None:
    folder = path.parent.with_name(DAMAGED)
    folder.mkdir(exist_ok=True)
    count = len(list(folder.iterdir()))  # in the name, because a step may be damaged more than once
    target = path.rename(folder / f"{path.name}-{count}")
    warn(f"the damaged checkpoint of step {path.name} was moved to {target}")


class Checkpoints:
    """Writes the `checkpoints/` folder of a work directory. It must be closed, or an unfinished save is lost."""

    def __init__(self, directory: pathlib.Path, config: TrainConfig) -> None:
        policies = ocp.training.preservation_policies
        retained: list[Any] = [policies.LatestN(config.keep_latest)]
        if config.keep_best and config.eval_every:
            best = policies.BestN(
                n=config.keep_best, get_metric_fn=lambda m: m["score"], keep_checkpoints_without_metrics=False
            )
            retained.append(best)
        self.directory = directory
        self._pending: Any = None
        self._checkpointer = ocp.training.Checkpointer(
            str(directory.absolute()),
            preservation_policy=cast(Any, policies.AnyPreservationPolicy(retained)),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: TrainState, score: float | None = None) -> None:
        """Start to write the state after `step` steps. A checkpoint of this step without a score is replaced.

        Returns once the arrays are copied, so that the next step may take over (donate) the buffers of the state.
        """
        self.wait()
        exists = (self.directory / str(step)).is_dir()
        if exists and (score is None or self.has_score(step)):
            return
        plain = packing.unpack(state)
        arrays = {name: (leaf.shape, leaf.dtype.name, _checksum(leaf)) for name, leaf in _arrays(plain).items()}
        metrics: Any = {"score": score} if score is not None else None
        self._pending = self._checkpointer.save_async(
            step,
            plain,
            metrics=metrics,
            force=True,
            overwrite=exists,
            custom_metadata=cast(Any, {"score": score, "arrays": arrays}),
        )

    def has_score(self, step: int) -> bool:
        """Whether the checkpoint of this step was saved with a score."""
        return _read(self.directory / str(step)).score is not None

    def wait(self) -> None:
        """Wait until the save in progress is on disk."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Finish the save in progress and release the folder."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    """Every array of a state by its path, on the host."""
    return {name: np.asarray(leaf) for name, leaf in states.leaves_by_path(jax.device_get(state)).items()}


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def _check_structure(checkpoint: Checkpoint, like: TrainState) -> None:
    saved = {name: (*shape, dtype) for name, (shape, dtype, _) in checkpoint.arrays.items()}
    expected = {name: (*leaf.shape, leaf.dtype.name) for name, leaf in states.leaves_by_path(like).items()}
    # Parameters first: the moments of the optimizer differ wherever they do, and say less.
    for name in sorted(saved.keys() | expected.keys(), key=lambda name: (not name.startswith("params/"), name)):
        if saved.get(name) != expected.get(name):
            raise UsageError(
                f"{checkpoint.path.parent}: checkpoint {checkpoint.step} is of another architecture: '{name}' is "
                f"{saved.get(name, 'absent')} there and {expected.get(name, 'absent')} in the configured network"
            )
