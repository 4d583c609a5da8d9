"""A training step with its state and a batch of noise, for timing and compilation without a data set."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.data.streams import feeding
from hep2jax.training import optimizers, packing, steps
from hep2jax.training import state as states
from hep2jax.training.state import Network, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticStep:
    """The training step of a run before compilation, with its arguments.

    Attributes:
        config: configuration of the run.
        network: structure of the network.
        step: function (state, batch, constants) → (state, metrics), which executes `train.steps_per_call` steps.
        state: initial packed state, replicated on all devices. A compiled step donates it, so it can be used only once.
        batch: a batch that is sharded over the devices.
        constants: class weights, all 1, replicated on all devices.
    """

    config: Config
    network: Network
    step: Callable[..., tuple[TrainState, steps.Metrics]]
    state: TrainState
    batch: feeding.DeviceBatch
    constants: steps.Constants

    @property
    def num_outputs(self) -> int:
        """Number of output channels of the network."""
        return tasks.num_outputs(self.config, tasks.patterns(self.config))

    def compile(self) -> tuple[jax.stages.Lowered, jax.stages.Compiled]:
        """Lower and compile the step as `hep2jax.training.loop` does."""
        replicated = meshes.replicated(meshes.make_mesh())
        jitted = jax.jit(self.step, donate_argnums=0, out_shardings=(replicated, replicated))
        lowered = jitted.lower(self.state, self.batch, self.constants)
        return lowered, lowered.compile()


def make(config: Config) -> SyntheticStep:
    """The configured network, its state and a batch; crops are cut on the host."""
    mesh, num_outputs = meshes.make_mesh(), tasks.num_outputs(config, tasks.patterns(config))
    network = states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    replicated = meshes.replicated(mesh)
    return SyntheticStep(
        config=config,
        network=network,
        step=steps.make_train_step(config, network, tasks.kind(config).loss),
        state=packing.pack(states.initial_state(network, optimizer, config.seed, replicated)),
        batch=feeding.put(noise(config), mesh, stacked=config.train.steps_per_call > 1),
        constants=jax.device_put({"class_weights": np.ones(num_outputs, np.float32)}, replicated),
    )


def noise(config: Config) -> dict[str, np.ndarray]:
    """A batch of noise with the shapes and dtypes of a training batch of the configured network."""
    rng, size, calls = np.random.default_rng(config.seed), config.train.global_batch_size, config.train.steps_per_call
    shapes = tasks.kind(config).batch_shapes(config, size)
    limits = {"image": 256, "labels": tasks.num_outputs(config, tasks.patterns(config))}
    batch = {
        name: rng.integers(0, limit, shapes[name].shape).astype(shapes[name].dtype) for name, limit in limits.items()
    }
    batch["tone_curve"] = np.tile(np.array([0, 1 / 255, 1, 0], np.float32), (size, 1))
    return {name: np.stack([values] * calls) for name, values in batch.items()} if calls > 1 else batch


def runner(run: Callable[..., Any], synthetic: SyntheticStep) -> Callable[[], Any]:
    """A function that dispatches the next call of `run`, the compiled `synthetic.step`, and returns its metrics."""
    state = synthetic.state

    def dispatch() -> Any:
        # `run` donates the state, so every call must use the state that the previous call returned.
        nonlocal state
        state, metrics = run(state, synthetic.batch, synthetic.constants)
        return metrics

    return dispatch
