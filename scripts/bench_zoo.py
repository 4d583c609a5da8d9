"""Measures the training step of every shipped configuration for the embedded data, with and without its input pipeline.

    python -m scripts.bench_zoo [--configs=cnn,dri,fcn] [--calls=5] [--repeats=5]

`alone`: every step uses the same batch. `with data`: batches as in training, made and put on the devices by the
prefetching thread. `waiting`: share of the time of `with data` in which the devices waited for a batch. Values are
medians over rounds in which both are measured in turn. They are for information: no test checks them.
"""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import jax
from absl import flags

from hep2jax import cli, config_files, tasks
from hep2jax.config import Config
from hep2jax.models import BAG_READERS, CLASSIFIERS, JOINT_READERS, SEGMENTERS
from hep2jax.training import loop, timing
from hep2jax.training import state as states
from hep2jax.training.loop import Feed, Run
from hep2jax.training.timing import StepClock
from scripts import bench_common

_WITHOUT_FILE = ("gao", "efficientnet_lite1", "efficientnet_lite2")  # they are in `cnn` and `efficientnet_lite0`
OF_CELLS = ("cnn", *(name for name in CLASSIFIERS if name not in _WITHOUT_FILE))
SHIPPED = (*OF_CELLS, *SEGMENTERS, *JOINT_READERS, *BAG_READERS, "mil:mixed")
_HEAD = (
    "configuration",
    "width",
    "batch",
    "input",
    "parameters",
    "MFLOP an image",
    "alone, ms",
    "with data, ms",
    "ratio",
    "waiting, %",
    "images/s",
)


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_list("configs", list(SHIPPED), "Configurations in configs/, each as FILE or FILE:VARIANT.")
    flags.DEFINE_integer("calls", 5, "Calls per measurement.")
    flags.DEFINE_integer("repeats", 5, "Number of rounds; a step is measured with and without data once in each.")


def main(argv: Sequence[str]) -> None:
    """Measure, then print the table and, as the last line, one JSON object."""
    del argv
    cli.prepare_runtime()
    where = bench_common.machine()
    bench_common.say_where(where)
    results, rows = {}, []
    for name in flags.FLAGS.configs:
        config = tasks.resolve(config_files.load(name))
        results[name] = result = measure(config, flags.FLAGS.calls, flags.FLAGS.repeats)
        size, side = config.train.global_batch_size, config.data.crop_size
        rows.append(
            (f"`{name}`", config.model.width, size, side, f"{result['parameters']:,}", *list(result.values())[1:])
        )
        print(bench_common.table(_HEAD, rows[-1:]).splitlines()[-1], flush=True)
    print(bench_common.table(_HEAD, rows))
    print(json.dumps({"benchmark": "zoo", **where, "configurations": results}))


def measure(
    config: Config, calls: int, repeats: int, lock: contextlib.AbstractContextManager | None = None
) -> dict[str, float]:
    """The values of a row, starting with `parameters`; `lock` is held while the devices are used."""
    with tempfile.TemporaryDirectory() as scratch:
        run = loop.prepare(config, pathlib.Path(scratch), StepClock(), tasks.load(config))
        try:
            with lock or contextlib.nullcontext(), loop.open_feed(run, 0, 1_000_000_000) as feed:
                return _measure(run, feed, calls, repeats)
        finally:
            loop.close(run)


def _measure(run: Run, feed: Feed, calls: int, repeats: int) -> dict[str, float]:
    batch = next(feed.batches)
    compiled = loop.compile_step(run, batch, feed.constants)
    variants = {
        "alone": _measurement(run, compiled, feed, lambda metrics: batch, calls),
        "fed": _measurement(
            run, compiled, feed, lambda metrics: loop.next_batch(run.clock, feed.batches, metrics), calls
        ),
    }
    variants["alone"]()
    rounds = bench_common.interleaved(variants, repeats)
    seconds = {name: [rates["step_seconds"] for rates in variant] for name, variant in rounds.items()}
    waited = {"fed": [rates["data_wait_share"] for rates in rounds["fed"]]}
    step = bench_common.medians(seconds)
    size = run.config.train.global_batch_size
    return {
        "parameters": states.num_parameters(run.state.params),
        "mflop_per_image": run.program.flops * jax.device_count() / size / 1e6,
        "alone_ms": 1e3 * step["alone"],
        "fed_ms": 1e3 * step["fed"],
        "ratio": bench_common.ratios(seconds, "alone")["fed"],
        "waiting_percent": 100 * bench_common.medians(waited)["fed"],
        "images_per_second": size / step["fed"],
    }


def _measurement(
    run: Run, compiled: jax.stages.Compiled, feed: Feed, next_batch: Callable, calls: int
) -> Callable[[], dict[str, float]]:
    """A function that measures one round and returns `timing.rates`."""
    # While the other variant was measured, the queue filled up. These batches would be free, so skip them.
    queued = run.config.train.prefetch + 1

    def run_calls(count: int) -> None:
        metrics = None
        for _ in range(count):
            batch = next_batch(metrics)
            with run.clock.phase("step"):
                # The step donates its state, so the new state must replace it.
                run.state, metrics = compiled(run.state, batch, feed.constants)
        with run.clock.phase("step"):
            jax.block_until_ready(run.state)

    def measure_round() -> dict[str, float]:
        run_calls(queued)
        run.clock.window()
        run_calls(calls)
        steps = calls * run.config.train.steps_per_call
        size = run.config.train.global_batch_size
        return timing.rates(run.clock.window(), steps=steps, batch=size, devices=jax.device_count())

    return measure_round


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
