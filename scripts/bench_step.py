"""Compares our training step (forward, backward, clipping, AdamW, averages) with the same network in PyTorch.

    python -m scripts.bench_step [--networks=gao,fcn,unet] [--ways=eager,channels_last,compile] [--repeats=15]

Both run in one process, in float32, with the same initial parameters and number of threads, on batches of noise. The
configurations are those of `configs/` (`gao` as published, the others narrower). For a GPU, use `scripts.gpu_report`.
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
"""The configuration of each network that has a PyTorch twin."""
OURS = "ours"


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_list("networks", list(CONFIGURATIONS), f"Networks to measure, from {', '.join(CONFIGURATIONS)}.")
    flags.DEFINE_list("ways", None, "Ways to run PyTorch, from eager, channels_last, compile, compile_channels_last.")
    flags.DEFINE_integer("batch", 0, "Batch size; 0: that of the configuration.")
    flags.DEFINE_float("width", 0.0, "Width of the network; 0: that of the configuration.")
    flags.DEFINE_integer("crop", 0, "Side of the input in pixels; 0: that of the configuration.")
    flags.DEFINE_integer("repeats", 15, "Number of rounds; both frameworks are measured once in each.")
    flags.DEFINE_integer("steps", 3, "Steps per measurement, with one wait for the last step.")


def main(argv: Sequence[str]) -> None:
    """Measure, then print the table and, as the last line, one JSON object."""
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
        for variant, milliseconds in result["ms"].items():
            times = (milliseconds, result["cpu_ms"][variant], result["ratio"][variant])
            rows.append((f"`{name}`", result["batch"], variant, *times))
        for way, problem in result["failed"].items():
            print(f"{name}, {way}: failed: {problem}", flush=True)
    print(bench_common.table(("network", "batch", "side", "ms a step", "CPU ms", "time of ours / this"), rows))
    print(json.dumps({"benchmark": "step", **where, "networks": results}))


def configuration(name: str, *, batch: int = 0, width: float = 0.0, crop: int = 0) -> Config:
    """The shipped configuration, with the arguments that are not 0. Raises UsageError for a network without a twin."""
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
    """Wall-clock and CPU milliseconds per step of each variant, ratios, and messages of variants that failed."""
    synthetic = synthetic_step.make(config)
    num_parameters, failed = states.num_parameters(synthetic.state.params), {}
    variants = {}
    for way in ways:
        try:
            variants[way] = _peer(synthetic, way, device, steps)
            variants[way]()
        except Exception as error:  # torch.compile may lack, for example, a C++ compiler or an operation
            variants.pop(way, None)
            failed[way] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    variants[OURS] = _ours(synthetic, steps)  # last: our step donates its state, which the peers copy before
    variants[OURS]()
    rounds, cpu = _wall_and_cpu(bench_common.interleaved(variants, repeats))
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
"""Wall-clock and CPU seconds per step."""


def _wall_and_cpu(rounds: dict[str, list[Round]]) -> tuple[bench_common.Rounds, bench_common.Rounds]:
    wall, cpu = ({name: [times[part] for times in variant] for name, variant in rounds.items()} for part in (0, 1))
    return wall, cpu


def _timed(run_steps: Callable[[], None], steps: int) -> Round:
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    run_steps()
    return (time.perf_counter() - wall_start) / steps, (time.process_time() - cpu_start) / steps


def _ours(synthetic: synthetic_step.SyntheticStep, steps: int) -> Callable[[], Round]:
    """A function that times one round of the compiled step."""
    dispatch = synthetic_step.runner(synthetic.compile()[1], synthetic)

    def run_steps() -> None:
        jax.block_until_ready([dispatch() for _ in range(steps)])

    return lambda: _timed(run_steps, steps)


def _peer(synthetic: synthetic_step.SyntheticStep, way: str, device: str, steps: int) -> Callable[[], Round]:
    """The same for the PyTorch twin, which starts with our parameters."""
    trainer = twin(synthetic, way, device)
    batch, constants = trainer.put(jax.device_get(synthetic.batch)), trainer.put(jax.device_get(synthetic.constants))

    def run_steps() -> None:
        for _ in range(steps):
            trainer.step(batch, constants["class_weights"])
        trainer.wait()

    return lambda: _timed(run_steps, steps)


def twin(synthetic: synthetic_step.SyntheticStep, way: str, device: str) -> "training.Trainer":
    """The trainer of the PyTorch twin, with our parameters."""
    from scripts.peers import networks, training

    model = networks.build(synthetic.config.model, synthetic.num_outputs)
    networks.copy_parameters(model, *packing.unpack((synthetic.state.params, synthetic.state.batch_stats)))
    return training.Trainer(model, synthetic.config, training.WAYS[way], device)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
