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
import numpy as np
from absl import flags

from hep2jax import cli, optimizers, steps, timing
from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import CLASSIFIERS, SEGMENTERS, Config

_ALL = ("cnn", *CLASSIFIERS[1:], *SEGMENTERS)
_CONFIGS = flags.DEFINE_list("configs", list(_ALL), "Stems of files in configs/.")
_REPEATS = flags.DEFINE_integer("repeats", 10, "Steps that are timed.")
_PATTERNS = 6


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    cli.prepare_runtime()
    rows = {}
    print("| network | width | depth | batch | input | parameters | MFLOP an image | ms a step | images/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for stem in _CONFIGS.value:
        config = configs.validate(importlib.import_module(f"configs.{stem}").get_config())
        rows[stem] = row = measure(config, _REPEATS.value)
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
    mesh = meshes.make_mesh()
    num_outputs = _PATTERNS + (config.model.name in SEGMENTERS)
    network = states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, 100)
    schedule = optimizers.make_schedule(config.optimizer, 100)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    step = jax.jit(steps.make_train_step(config, network, optimizer, schedule), donate_argnums=0)
    batch, weights = made_up_batch(config, num_outputs), np.ones(num_outputs, np.float32)
    lowered = step.lower(state, batch, weights)
    compiled = lowered.compile()
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        state, metrics = compiled(state, batch, weights)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    middle, size = statistics.median(seconds[1:]), config.train.global_batch_size
    return {
        "parameters": states.num_parameters(state.params),
        "mflop_per_image": timing.analyse(lowered, compiled).flops / size / 1e6,
        "ms": 1e3 * middle,
        "images_per_second": size / middle,
    }


def made_up_batch(config: Config, num_outputs: int) -> dict[str, np.ndarray]:
    """A batch of noise in the shape that the network is trained on."""
    rng = np.random.default_rng(0)
    size, side = config.train.global_batch_size, config.data.crop_size
    shape = (size, side, side) if config.model.name in SEGMENTERS else (size,)
    return {
        "image": rng.integers(0, 255, (size, side, side)).astype(np.uint8),
        "labels": rng.integers(0, num_outputs, shape).astype(np.uint8 if len(shape) == 3 else np.int32),
        "greys": np.tile(np.array([0, 1 / 255, 1, 0], np.float32), (size, 1)),
    }


if __name__ == "__main__":
    cli.run_app(main)
