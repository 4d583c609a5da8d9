"""The training step of every shipped network, side by side in one process; no figure is a test.

    python -m scripts.bench_zoo [--configs=cnn,dri,fcn] [--repeats=10]

Made-up pixels; forward, backward and update as in training, one warm step first, medians.
"""

import importlib
import json
import statistics
import time
from collections.abc import Sequence

import jax
from absl import flags

from hep2jax import cli, timing
from hep2jax import config as configs
from hep2jax import state as states
from hep2jax.config import CLASSIFIERS, SEGMENTERS, Config
from scripts import made_up

_ALL = ("cnn", *CLASSIFIERS[1:], *SEGMENTERS)


def define_flags() -> None:
    """The command's own flags."""
    flags.DEFINE_list("configs", list(_ALL), "Stems of files in configs/.")
    flags.DEFINE_integer("repeats", 10, "Steps that are timed.")


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    cli.prepare_runtime()
    rows = {}
    print("| network | width | depth | batch | input | parameters | MFLOP an image | ms a step | images/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for stem in flags.FLAGS.configs:
        config = configs.validate(importlib.import_module(f"configs.{stem}").get_config())
        rows[stem] = row = measure(config, flags.FLAGS.repeats)
        model, data = config.model, config.data
        print(
            f"| `{model.name}` | {model.width:g} | {model.depth or '–'} | {config.train.global_batch_size} "
            f"| {data.crop_size} | {row['parameters']:,} | {row['mflop_per_image']:.0f} | {row['ms']:.0f} "
            f"| {row['images_per_second']:.0f} |",
            flush=True,
        )
    print(json.dumps(rows))


def measure(config: Config, repeats: int) -> dict[str, float]:
    """Parameters, MFLOP of a whole training step per image, median milliseconds and images/s."""
    made = made_up.make(config)
    num_parameters = states.num_parameters(made.state.params)
    lowered, compiled = made.compile()
    dispatch = made_up.runner(compiled, made)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(dispatch())
        seconds.append(time.perf_counter() - started)
    middle, size = statistics.median(seconds[1:]), config.train.global_batch_size
    return {
        "parameters": num_parameters,
        "mflop_per_image": timing.analyse(lowered, compiled).flops / size / 1e6,
        "ms": 1e3 * middle,
        "images_per_second": size / middle,
    }


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
