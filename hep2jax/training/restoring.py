"""What a work directory has learned: the state of its best checkpoint, or the parameters of a fitted reader."""

import pathlib
from typing import Any

import jax

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.training import checkpoints, fitted, optimizers
from hep2jax.training import state as states
from hep2jax.training.state import Network, TrainState


def restore(
    config: Config, directory: pathlib.Path, network: Network, mesh: jax.sharding.Mesh
) -> tuple[TrainState, int]:
    """The state of a work directory's best intact checkpoint (of the newest if none has a score), and its step.

    Raises:
        UsageError: there is no checkpoint, or it is of another architecture.
        DamagedCheckpointError: all checkpoints are damaged.
    """
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    like = states.shapes(network, optimizer, meshes.replicated(mesh))
    restored = checkpoints.restore_first(checkpoints.best(directory / "checkpoints"), like)
    if restored is None:
        raise UsageError(f"--workdir={directory}: there is no finished checkpoint yet; train longer")
    return restored[0], restored[1].step


def averaged(
    config: Config, directory: pathlib.Path, network: Network | None, mesh: jax.sharding.Mesh
) -> tuple[tuple[Any, Any], int]:
    """The parameters and statistics that are evaluated, and their step; without a network those of a fitted reader.

    Raises:
        UsageError, DamagedCheckpointError: as for `restore`.
    """
    if network is None:
        return (fitted.load(directory), {}), fitted.STEP
    state, step = restore(config, directory, network, mesh)
    return (state.ema_params, state.ema_batch_stats), step
