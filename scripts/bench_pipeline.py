"""Rates of the input pipeline, stage by stage, beside the training step that it feeds; no figure is a test.

python -m scripts.bench_pipeline [--config=configs/fcn.py] [--seconds=5]
"""

import json
import time
from collections.abc import Callable, Sequence

import jax
from absl import flags

from hep2jax import cli, optimizers, steps, tasks
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.data import feeding, protocols
from hep2jax.tasks import Task

cli.define_experiment_flags()
_SECONDS = flags.DEFINE_float("seconds", 5.0, "How long each stage is measured.")


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    config, _ = cli.experiment()
    cli.prepare_runtime()
    started = time.perf_counter()
    task = tasks.load(config)
    rates: dict[str, float] = {"load_seconds": time.perf_counter() - started, "examples": len(task.items)}
    rates |= measure(task, _SECONDS.value)
    for name, value in rates.items():
        print(f"{name:32s} {value:12.1f}")
    print(json.dumps({"config": config.data.name, "model": config.model.name, **rates}))


def measure(task: Task, seconds: float) -> dict[str, float]:
    """Images/s of the stream alone, with prefetching and transfer, and of the training step alone."""
    config, mesh = task.config, meshes.make_mesh()
    train = protocols.partition(config.data, task.name, task.items, task.classes).train
    size = config.train.global_batch_size
    stream = task.stream(train, slice(0, size))
    made = iter(range(10**9))
    rates = {"stream_images_per_second": size * _per_second(lambda: stream.batch(next(made)), seconds)}
    batches = feeding.prefetched(stream.dataset(0, 10**6), mesh, config.train.prefetch)
    rates["prefetched_images_per_second"] = size * _per_second(lambda: jax.block_until_ready(next(batches)), seconds)
    batch = next(batches)
    batches.close()
    rates["step_images_per_second"] = size * _per_second(_stepper(task, mesh, batch), seconds)
    rates["stream_over_step"] = rates["stream_images_per_second"] / rates["step_images_per_second"]
    return rates


def _stepper(task: Task, mesh: jax.sharding.Mesh, batch: feeding.DeviceBatch) -> Callable[[], None]:
    """A function that runs one training step on `batch` and waits for its end."""
    config = task.config
    network = states.make_network(config, task.num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    schedule = optimizers.make_schedule(config.optimizer, config.train.num_steps)
    state = states.initial_state(network, optimizer, config.seed, meshes.replicated(mesh))
    weights = jax.device_put(jax.numpy.ones(task.num_outputs), meshes.replicated(mesh))
    step = jax.jit(steps.make_train_step(config, network, optimizer, schedule), donate_argnums=0)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch, weights)
        jax.block_until_ready(metrics)

    run()  # compiles
    return run


def _per_second(call: Callable[[], object], seconds: float) -> float:
    """Calls per second over at least `seconds`, after one that is not counted."""
    call()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    cli.run_app(main)
