"""A training step with its state and a batch of noise, for what times or compiles steps and needs no images."""

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
    """What a training run compiles, before it is compiled.

    Attributes:
        config: of the run.
        network: its structure.
        step: (state, batch, constants) → (state, metrics), not compiled; `train.steps_per_call` steps.
        state: fresh, packed, on every device. A compiled step donates it: it can be used up once.
        batch: on the devices, divided over them.
        constants: class weights, all 1, on every device.
    """

    config: Config
    network: Network
    step: Callable[..., tuple[TrainState, steps.Metrics]]
    state: TrainState
    batch: feeding.DeviceBatch
    constants: steps.Constants

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return tasks.num_outputs(self.config, tasks.patterns(self.config))

    def compile(self) -> tuple[jax.stages.Lowered, jax.stages.Compiled]:
        """The step as `hep2jax.training.loop` compiles it."""
        shared = meshes.replicated(meshes.make_mesh())
        jitted = jax.jit(self.step, donate_argnums=0, out_shardings=(shared, shared))
        lowered = jitted.lower(self.state, self.batch, self.constants)
        return lowered, lowered.compile()


def make(config: Config) -> SyntheticStep:
    """The configured network, its state and a batch; crops are made on the host."""
    mesh, num_outputs = meshes.make_mesh(), tasks.num_outputs(config, tasks.patterns(config))
    network = states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    shared = meshes.replicated(mesh)
    return SyntheticStep(
        config=config,
        network=network,
        step=steps.make_train_step(config, network, tasks.kind(config).loss),
        state=packing.pack(states.initial_state(network, optimizer, config.seed, shared)),
        batch=feeding.put(noise(config), mesh, stacked=config.train.steps_per_call > 1),
        constants=jax.device_put({"class_weights": np.ones(num_outputs, np.float32)}, shared),
    )


def noise(config: Config) -> dict[str, np.ndarray]:
    """A batch of noise in the shapes and dtypes that the configured network is trained on."""
    rng, size, calls = np.random.default_rng(config.seed), config.train.global_batch_size, config.train.steps_per_call
    shapes = tasks.kind(config).batch_shapes(config, size)
    tops = {"image": 256, "labels": tasks.num_outputs(config, tasks.patterns(config))}
    batch = {name: rng.integers(0, top, shapes[name].shape).astype(shapes[name].dtype) for name, top in tops.items()}
    batch["tone_curve"] = np.tile(np.array([0, 1 / 255, 1, 0], np.float32), (size, 1))
    return {name: np.stack([values] * calls) for name, values in batch.items()} if calls > 1 else batch


def runner(run: Callable[..., Any], made: SyntheticStep) -> Callable[[], Any]:
    """A function that dispatches one more call of `run`, made from `made.step`, and returns its metrics."""
    state = made.state

    def one() -> Any:
        nonlocal state
        state, metrics = run(state, made.batch, made.constants)
        return metrics

    return one
