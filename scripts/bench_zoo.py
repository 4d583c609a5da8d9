"""The training step of every shipped configuration for the embedded data, alone and with its data; no figure is a test.

    python -m scripts.bench_zoo [--configs=cnn,dri,fcn] [--calls=5] [--repeats=5]

`alone`: the same batch again and again. `with data`: batches as training takes them, made and put on the devices by the
prefetching thread. `waiting`: share of the latter's time in which the devices had nothing to do for want of a batch.
Medians over the rounds; both sides take turns.
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

_ALL = ("cnn", *list(CLASSIFIERS)[1:], *SEGMENTERS, *JOINT_READERS, *BAG_READERS, "mil:mixed")
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
    """The command's own flags."""
    flags.DEFINE_list("configs", list(_ALL), "Of configs/, each as FILE or FILE:VARIANT.")
    flags.DEFINE_integer("calls", 5, "Calls of a side in a round.")
    flags.DEFINE_integer("repeats", 5, "Rounds; both sides are measured once in each.")


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    cli.prepare_runtime()
    where = bench_common.machine()
    bench_common.say_where(where)
    results, rows = {}, []
    for name in flags.FLAGS.configs:
        config = tasks.resolve(config_files.load(name))
        results[name] = found = measure(config, flags.FLAGS.calls, flags.FLAGS.repeats)
        size, side = config.train.global_batch_size, config.data.crop_size
        rows.append(
            (f"`{name}`", config.model.width, size, side, f"{found['parameters']:,}", *list(found.values())[1:])
        )
        print(bench_common.table(_HEAD, rows[-1:]).splitlines()[-1], flush=True)
    print(bench_common.table(_HEAD, rows))
    print(json.dumps({"benchmark": "zoo", **where, "configurations": results}))


def measure(
    config: Config, calls: int, repeats: int, lock: contextlib.AbstractContextManager | None = None
) -> dict[str, float]:
    """The figures of a row, from `parameters` on; with the `lock` held while the devices are used."""
    with tempfile.TemporaryDirectory() as scratch:
        this = loop.prepare(config, pathlib.Path(scratch), StepClock(), tasks.load(config))
        try:
            with lock or contextlib.nullcontext(), loop.open_feed(this, 0, 1_000_000_000) as feed:
                return _measure(this, feed, calls, repeats)
        finally:
            this.checkpoints.close()
            this.writer.close()


def _measure(this: Run, feed: Feed, calls: int, repeats: int) -> dict[str, float]:
    batch = next(feed.batches)
    compiled = loop.compile_step(this, batch, feed.constants)
    sides = {
        "alone": _side(this, compiled, feed, lambda metrics: batch, calls),
        "fed": _side(this, compiled, feed, lambda metrics: loop.next_batch(this, feed.batches, metrics), calls),
    }
    sides["alone"]()
    rounds = bench_common.interleaved(sides, repeats)
    seconds = {name: [each["step_seconds"] for each in figures] for name, figures in rounds.items()}
    waited = {"fed": [each["data_wait_share"] for each in rounds["fed"]]}
    step = bench_common.medians(seconds)
    size = this.config.train.global_batch_size
    return {
        "parameters": states.num_parameters(this.state.params),
        "mflop_per_image": this.program.flops * jax.device_count() / size / 1e6,
        "alone_ms": 1e3 * step["alone"],
        "fed_ms": 1e3 * step["fed"],
        "ratio": bench_common.ratios(seconds, "alone")["fed"],
        "waiting_percent": 100 * bench_common.medians(waited)["fed"],
        "images_per_second": size / step["fed"],
    }


def _side(
    this: Run, compiled: jax.stages.Compiled, feed: Feed, next_batch: Callable, calls: int
) -> Callable[[], dict[str, float]]:
    """A function that measures one round: the figures of `timing.rates`."""
    # While the other side was measured, the queue filled: those batches cost this round nothing.
    queued = this.config.train.prefetch + 1

    def several(count: int) -> None:
        metrics = None
        for _ in range(count):
            batch = next_batch(metrics)
            with this.clock.phase("step"):
                this.state, metrics = compiled(this.state, batch, feed.constants)
        with this.clock.phase("step"):
            jax.block_until_ready(this.state)

    def run() -> dict[str, float]:
        several(queued)
        this.clock.window()
        several(calls)
        steps = calls * this.config.train.steps_per_call
        size = this.config.train.global_batch_size
        return timing.rates(this.clock.window(), steps=steps, batch=size, devices=jax.device_count())

    return run


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
