"""The training step (forward, backward, clipping, AdamW, averages) beside the same network in PyTorch, in one process.

    python -m scripts.bench_step [--networks=gao,fcn,unet] [--ways=eager,channels_last,compile] [--repeats=15]

Configurations are those of `configs/` (`gao` as published, the others narrower), the batch is noise, both sides start
from the same parameters and use the same number of threads, float32. For a GPU there is `scripts.gpu_report`.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
from absl import flags

from hep2jax import cli, config_files, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.training import packing
from hep2jax.training import state as states
from scripts import bench_common, synthetic_step

if TYPE_CHECKING:
    from scripts.peers import training

CONFIGURATIONS = {"gao": "cnn", "resnet": "resnet", "fcn": "fcn", "dsfcn": "dsfcn", "unet": "unet"}
"""The configuration of each network that has a twin."""
OURS = "ours"


def define_flags() -> None:
    """The command's own flags."""
    flags.DEFINE_list("networks", list(CONFIGURATIONS), f"Of {', '.join(CONFIGURATIONS)}.")
    flags.DEFINE_list("ways", None, "Of eager, channels_last, compile, compile_channels_last.")
    flags.DEFINE_integer("batch", 0, "Examples in a step; 0: the configuration's.")
    flags.DEFINE_float("width", 0.0, "Of the network; 0: the configuration's.")
    flags.DEFINE_integer("crop", 0, "Side of the input; 0: the configuration's.")
    flags.DEFINE_integer("repeats", 15, "Rounds; every side is measured once in each.")
    flags.DEFINE_integer("steps", 3, "Steps of a side in a round, with one wait at their end.")


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    bench_common.need_torch()
    cli.prepare_runtime()
    options = flags.FLAGS
    device, ways = _device_and_ways(options.ways)
    where = bench_common.machine() | {"torch_device": device}
    bench_common.say_where(where)
    results, rows = {}, []
    for name in options.networks:
        config = configuration(name, batch=options.batch, width=options.width, crop=options.crop)
        results[name] = result = measure(config, ways, device, options.repeats, options.steps)
        for side, milliseconds in result["ms"].items():
            rows.append(
                (f"`{name}`", result["batch"], side, milliseconds, result["cpu_ms"][side], result["ratio"][side])
            )
        for way, problem in result["failed"].items():
            print(f"{name}, {way}: failed: {problem}", flush=True)
    print(bench_common.table(("network", "batch", "side", "ms a step", "CPU ms", "time of ours / this"), rows))
    print(json.dumps({"benchmark": "step", **where, "networks": results}))


def configuration(name: str, *, batch: int = 0, width: float = 0.0, crop: int = 0) -> Config:
    """The shipped configuration, with what is not 0 changed. Raises UsageError for a network without a twin."""
    if name not in CONFIGURATIONS:
        raise UsageError(f"--networks={name}: must be of {', '.join(CONFIGURATIONS)}")
    config = config_files.load(CONFIGURATIONS[name])
    config.train.global_batch_size = batch or config.train.global_batch_size
    config.model.width = width or config.model.width
    config.data.crop_size = crop or config.data.crop_size
    return tasks.resolve(config)


def _device_and_ways(ways: list[str] | None) -> tuple[str, list[str]]:
    import torch  # pyright: ignore[reportMissingImports]

    from scripts.peers import training

    torch.set_num_threads(bench_common.num_threads())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ways = ways or (["bfloat16", "compile_bfloat16"] if device == "cuda" else ["eager", "channels_last", "compile"])
    unknown = [way for way in ways if way not in training.WAYS]
    if unknown:
        raise UsageError(f"--ways={unknown[0]}: must be of {', '.join(training.WAYS)}")
    return device, ways


def measure(config: Config, ways: Sequence[str], device: str, repeats: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step of every side, by the clock and of all processors, ratios, and the words of what failed."""
    made = synthetic_step.make(config)
    num_parameters, failed = states.num_parameters(made.state.params), {}
    sides = {}
    for way in ways:
        try:
            sides[way] = _peer(made, way, device, steps)
            sides[way]()
        except Exception as error:  # whatever torch.compile lacks here: a C++ compiler, an operation
            sides.pop(way, None)
            failed[way] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    sides[OURS] = _ours(made, steps)  # last: it uses the state up
    sides[OURS]()
    rounds, cpu = _divided(bench_common.interleaved(sides, repeats))
    return {
        "batch": config.train.global_batch_size,
        "width": config.model.width,
        "side": config.data.crop_size,
        "parameters": num_parameters,
        "ms": {name: 1e3 * seconds for name, seconds in bench_common.medians(rounds).items()},
        "cpu_ms": {name: 1e3 * seconds for name, seconds in bench_common.medians(cpu).items()},
        "ratio": {name: 1 / ratio for name, ratio in bench_common.ratios(rounds, OURS).items()},
        "failed": failed,
    }


Round = tuple[float, float]
"""Seconds of the clock and of all processors, for each step."""


def _divided(rounds: dict[str, list[Round]]) -> tuple[bench_common.Rounds, bench_common.Rounds]:
    wall, cpu = ({name: [each[part] for each in figures] for name, figures in rounds.items()} for part in (0, 1))
    return wall, cpu


def _timed(several: Callable[[], None], steps: int) -> Round:
    clock, processors = time.perf_counter(), time.process_time()
    several()
    return (time.perf_counter() - clock) / steps, (time.process_time() - processors) / steps


def _ours(made: synthetic_step.SyntheticStep, steps: int) -> Callable[[], Round]:
    """A function that times one round of the compiled step."""
    dispatch = synthetic_step.runner(made.compile()[1], made)

    def several() -> None:
        jax.block_until_ready([dispatch() for _ in range(steps)])

    return lambda: _timed(several, steps)


def _peer(made: synthetic_step.SyntheticStep, way: str, device: str, steps: int) -> Callable[[], Round]:
    """The same of the twin, which starts from our parameters."""
    trainer = twin(made, way, device)
    batch, constants = trainer.put(jax.device_get(made.batch)), trainer.put(jax.device_get(made.constants))

    def several() -> None:
        for _ in range(steps):
            trainer.step(batch, constants["class_weights"])
        trainer.wait()

    return lambda: _timed(several, steps)


def twin(made: synthetic_step.SyntheticStep, way: str, device: str) -> "training.Trainer":
    """The PyTorch side with our parameters."""
    from scripts.peers import networks, training

    model = networks.build(made.config.model, made.num_outputs)
    networks.copy_parameters(model, *packing.unpack((made.state.params, made.state.batch_stats)))
    return training.Trainer(model, made.config, training.WAYS[way], device)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
