"""Checkpoints by Orbax: asynchronous saves, retention of the latest and the best, restoring onto any mesh.

A checkpoint holds the unpacked state, so that its layout does not depend on how a step packs its arrays.
"""

import pathlib
from typing import Any, cast

import jax
from orbax.checkpoint import v1 as ocp

from hep2jax.config import TrainConfig
from hep2jax.errors import UsageError
from hep2jax.training import packing
from hep2jax.training import state as states
from hep2jax.training.state import TrainState

_SCORE = "score"


class Checkpoints:
    """The `checkpoints/` folder of a work directory. It must be closed; otherwise an unfinished save is lost."""

    def __init__(self, directory: pathlib.Path, config: TrainConfig) -> None:
        policies = ocp.training.preservation_policies
        retained: list[Any] = [policies.LatestN(config.keep_latest)]
        if config.keep_best and config.eval_every:
            best = policies.BestN(
                n=config.keep_best, get_metric_fn=lambda m: m[_SCORE], keep_checkpoints_without_metrics=False
            )
            retained.append(best)
        self._pending: Any = None
        self._checkpointer = ocp.training.Checkpointer(
            str(directory.absolute()),
            preservation_policy=cast(Any, policies.AnyPreservationPolicy(retained)),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return latest.step if latest else None

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest score, or of the newest checkpoint if none has a score."""
        scored = [(c.metrics[_SCORE], c.step) for c in self._checkpointer.checkpoints if isinstance(c.metrics, dict)]
        if not scored:
            return self.latest_step
        return max(scored)[1]

    def save(self, step: int, state: TrainState, score: float | None = None) -> None:
        """Start to write the state after `step` steps.

        Returns once the arrays are copied, so that the next step may take over (donate) the buffers of the state.
        """
        self.wait()
        if step == self.latest_step:
            return
        metrics: Any = {_SCORE: score} if score is not None else None
        self._pending = self._checkpointer.save_async(step, packing.unpack(state), metrics=metrics, force=True)

    def wait(self) -> None:
        """Wait until the save in progress is on disk."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, with the shapes and shardings of `like`, and packed wherever `like` is packed.

        Raises:
            UsageError: the checkpoint is of another architecture; the message names the first parameter that differs.
        """
        self.wait()  # the step may be the one that is still being written
        plain = packing.unpack(like)
        self._check_structure(step, plain)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), plain)
        return packing.like(like, self._checkpointer.load(step, abstract))

    def close(self) -> None:
        """Finish the save in progress and release the folder."""
        self.wait()
        self._checkpointer.close()

    def _check_structure(self, step: int, like: TrainState) -> None:
        metadata = self._checkpointer.metadata(step).metadata
        saved = {name: tuple(leaf.shape) for name, leaf in states.leaves_by_path(_params_of(metadata)).items()}
        expected = {name: tuple(leaf.shape) for name, leaf in states.leaves_by_path(like.params).items()}
        for name in sorted(saved.keys() | expected.keys()):
            if saved.get(name) != expected.get(name):
                raise UsageError(
                    f"{self._checkpointer.directory}: checkpoint {step} is of another architecture: parameter '{name}' "
                    f"is {saved.get(name, 'absent')} there and {expected.get(name, 'absent')} in the configured network"
                )


def _params_of(metadata: Any) -> dict[str, Any]:
    return metadata["params"] if isinstance(metadata, dict) else metadata.params
