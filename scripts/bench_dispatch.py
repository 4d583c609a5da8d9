"""Measures the cost of dispatching a training step: our compiled step, `jax.jit`, `jax.pmap`, `nnx.jit` and others.

    python -m scripts.bench_dispatch [--networks=gao,fcn,dsfcn] [--size=tiny] [--calls=50] [--repeats=7]
    python -m scripts.bench_dispatch --networks=gao,fcn --size=shipped --calls=3

All times are per training step. `host us`: time from call to call of a program that takes and returns the same arrays
and computes nothing; this is the work of the host, which device time does not hide. `call us`: time from call to return
of the training step with an empty queue; a CPU computes inside the call, an accelerator after it. `step ms`: time from
step to step. `tiny`: the narrowest network with the smallest input; `shipped`: the unchanged configuration.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import flags
from flax import nnx

from hep2jax import cli
from hep2jax.config import Config
from hep2jax.models import ClassifierOutput
from hep2jax.training import losses, optimizers, packing, steps
from hep2jax.training.state import TrainState
from scripts import bench_common, bench_step, synthetic_step

OURS = "compiled (ours)"
STEPS_PER_CALL = 8
_AXIS = "devices"


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_list("networks", ["gao", "fcn", "dsfcn"], "Networks to measure, from gao, resnet, fcn, dsfcn.")
    flags.DEFINE_enum("size", "tiny", ["tiny", "shipped"], "Size of the networks.")
    flags.DEFINE_integer("calls", 50, "Calls of each path in a round.")
    flags.DEFINE_integer("repeats", 7, "Number of rounds; every path is measured once in each.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """One way to call training steps: `call` starts a call and returns its metrics."""

    call: Callable[[], Any]
    steps: int = 1
    """Number of training steps per call."""


def main(argv: Sequence[str]) -> None:
    """Measure, then print the table and, as the last line, one JSON object."""
    del argv
    cli.prepare_runtime()
    options = flags.FLAGS
    where = bench_common.machine()
    bench_common.say_where(where)
    results, rows = {}, []
    for name in options.networks:
        config = bench_step.configuration(name)
        if options.size == "tiny":
            make_tiny(config)
        results[name] = measure(config, options.calls, options.repeats)
        for path, times in results[name]["paths"].items():
            rows.append((f"`{name}`", results[name]["leaves"], path, *times.values()))
    head = ("network", "arrays in state", "path", "host us", "over ours", "call us", "step ms", "over ours")
    print(bench_common.table(head, rows))
    print(json.dumps({"benchmark": "dispatch", "size": options.size, **where, "networks": results}))


def make_tiny(config: Config) -> None:
    """Change the configuration to the narrowest network, one example per device and the smallest input."""
    config.model.width = config.model.width if config.model.name == "gao" else 0.01
    config.data.crop_size = config.data.crop_size if config.model.name == "gao" else 32
    config.train.global_batch_size = jax.device_count()


def measure(config: Config, calls: int, repeats: int) -> dict[str, Any]:
    """Times of every path."""
    host = measure_idle(config, calls, repeats)
    paths = _compiled_paths(config, idle=False)
    full = bench_common.interleaved(_measurements(paths, calls, _seconds_a_step), repeats)
    returned = bench_common.medians(bench_common.interleaved(_measurements(paths, calls, _seconds_to_return), repeats))
    host_seconds, step_seconds = bench_common.medians(host), bench_common.medians(full)
    host_ratios, step_ratios = bench_common.ratios(host, OURS), bench_common.ratios(full, OURS)
    times = {
        name: {
            "host_us": 1e6 * host_seconds[name],
            "host_ratio": host_ratios[name],
            "call_us": 1e6 * returned[name],
            "step_ms": 1e3 * step_seconds[name],
            "step_ratio": step_ratios[name],
        }
        for name in PATHS
    }
    leaves = len(jax.tree.leaves(synthetic_step.make(config).state))
    return {"batch": config.train.global_batch_size, "leaves": leaves, "paths": times}


def measure_idle(config: Config, calls: int, repeats: int) -> bench_common.Rounds:
    """Host time of each training step in seconds, by round."""
    return bench_common.interleaved(_measurements(_compiled_paths(config, idle=True), calls, _seconds_a_step), repeats)


def _compiled_paths(config: Config, *, idle: bool) -> dict[str, Path]:
    """All paths, compiled by a first call."""
    paths = {name: make(config, idle=idle) for name, make in PATHS.items()}
    for path in paths.values():
        jax.block_until_ready(path.call())
    return paths


def _measurements(paths: dict[str, Path], calls: int, measure_path: Callable[[Path, int], float]) -> Any:
    """A function for each path that measures it once."""
    return {name: functools.partial(measure_path, path, calls) for name, path in paths.items()}


def _seconds_a_step(path: Path, calls: int) -> float:
    started, metrics = time.perf_counter(), None
    for _ in range(calls):
        metrics = path.call()
    jax.block_until_ready(metrics)
    return (time.perf_counter() - started) / (calls * path.steps)


def _seconds_to_return(path: Path, calls: int) -> float:
    """Median time of a call until it returns; each call waits for the previous one, so that the queue is empty."""
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        metrics = path.call()
        seconds.append(time.perf_counter() - started)
        jax.block_until_ready(metrics)
    return statistics.median(seconds) / path.steps


def _synthetic_step(config: Config, idle: bool) -> synthetic_step.SyntheticStep:
    """The training step on noise; `idle` replaces it by a step without arithmetic."""
    synthetic = synthetic_step.make(config)
    return dataclasses.replace(synthetic, step=do_nothing) if idle else synthetic


def do_nothing(state: TrainState, batch: Any, constants: Any) -> tuple[TrainState, steps.Metrics]:
    """A step with the same arguments and results, but without arithmetic."""
    del batch, constants
    metrics = {name: jnp.zeros(()) for name in ("loss", "grad_norm", "learning_rate")}
    return dataclasses.replace(state, step=state.step + 1), metrics


def compiled(config: Config, *, idle: bool) -> Path:
    """The step as in `hep2jax.training.loop`: a program that is compiled before the first call."""
    synthetic = _synthetic_step(config, idle)
    return Path(call=synthetic_step.runner(synthetic.compile()[1], synthetic), steps=config.train.steps_per_call)


def several(config: Config, *, idle: bool) -> Path:
    """The same as `compiled`, with `train.steps_per_call=8`."""
    train = dataclasses.replace(config.train, steps_per_call=STEPS_PER_CALL)
    return compiled(dataclasses.replace(config, train=train), idle=idle)


def jitted(config: Config, *, idle: bool) -> Path:
    """`jax.jit` of the same function."""
    synthetic = _synthetic_step(config, idle)
    return Path(call=synthetic_step.runner(jax.jit(synthetic.step, donate_argnums=0), synthetic))


def pmapped(config: Config, *, idle: bool) -> Path:
    """`jax.pmap` of the same function over the local devices, each with its share of the batch.

    The devices average their parameters after the step instead of their gradients during the step: this transfers the
    same number of bytes and does not need another training step.
    """
    synthetic, count = _synthetic_step(config, idle), jax.local_device_count()

    def step(state: TrainState, batch: Any, constants: Any) -> tuple[TrainState, steps.Metrics]:
        state, metrics = synthetic.step(state, batch, constants)
        if idle or count == 1:
            return state, metrics
        params, stats, metrics = jax.lax.pmean((state.params, state.batch_stats, metrics), _AXIS)
        return dataclasses.replace(state, params=params, batch_stats=stats), metrics

    state, constants = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), (synthetic.state, synthetic.constants))
    batch = jax.tree.map(lambda leaf: jnp.reshape(leaf, (count, -1, *leaf.shape[1:])), synthetic.batch)
    divided = dataclasses.replace(synthetic, state=state, batch=batch, constants=constants)
    return Path(call=synthetic_step.runner(jax.pmap(step, axis_name=_AXIS, donate_argnums=0), divided))


def nnx_jitted(config: Config, *, idle: bool) -> Path:
    """`nnx.jit` of a step over modules, with `nnx.Optimizer` and the averages as a second module."""
    synthetic = synthetic_step.make(config)
    state, transform = (
        packing.unpack(synthetic.state),
        optimizers.make_optimizer(config.optimizer, config.train.num_steps),
    )
    model = nnx.merge(synthetic.network.graphdef, state.params, state.batch_stats)
    average = nnx.merge(synthetic.network.graphdef, state.ema_params, state.ema_batch_stats)
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    step = nnx.jit(_do_nothing_to_modules if idle else _module_step(config))
    return Path(call=lambda: step(model, optimizer, average, synthetic.batch, synthetic.constants))


def _do_nothing_to_modules(model, optimizer, average, batch, constants) -> steps.Metrics:
    del model, average, batch, constants
    optimizer.step[...] += 1
    return {name: jnp.zeros(()) for name in ("loss", "grad_norm", "learning_rate")}


def _module_step(config: Config) -> Callable[..., steps.Metrics]:
    """`hep2jax.training.steps.make_train_step` in the style of Flax's documentation."""
    schedule = optimizers.make_schedule(config.optimizer, config.train.num_steps)

    def loss_fn(model, batch, class_weights):
        image = steps.normalise(batch["image"], batch["tone_curve"])
        output = model(image, train=True)
        if isinstance(output, ClassifierOutput):
            return losses.cell_loss(output, batch["labels"], model.target(image), class_weights, config.loss)
        return losses.combine(
            losses.segmentation_loss(output, batch["labels"], class_weights, config.loss), config.loss
        )

    def step(model, optimizer, average, batch, constants):
        rate = jnp.asarray(schedule(optimizer.step[...]), jnp.float32)
        loss, grads = nnx.value_and_grad(loss_fn)(model, batch, constants["class_weights"])
        optimizer.update(model, grads)
        count = optimizer.step[...].astype(jnp.float32)
        weight = 1.0 - jnp.minimum(config.optimizer.ema_decay, count / (count + 10.0))
        mixed = optax.incremental_update(nnx.state(model), nnx.state(average), weight)
        nnx.update(average, mixed)
        return {"loss": loss, "grad_norm": optax.tree.norm(grads), "learning_rate": rate}

    return step


PATHS: dict[str, Callable[..., Path]] = {
    OURS: compiled,
    f"steps_per_call={STEPS_PER_CALL}": several,
    "jax.jit": jitted,
    "jax.pmap": pmapped,
    "nnx.jit": nnx_jitted,
}
"""The ways to call the same step, by name."""


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
