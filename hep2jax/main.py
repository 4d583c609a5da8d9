"""Trains, evaluates, profiles or compiles an experiment. This file is intentionally short.

python -m hep2jax.main --config=configs/fcn.py [--config.<section>.<key>=<value> ...] [--workdir=DIR] [--mode=train]
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from hep2jax import cli, distributed, remote, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.perf import aot, profiling
from hep2jax.training import evaluation, loop


def define_flags() -> None:
    """Define the command's flags."""
    cli.define_experiment_flags()
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "evaluate", "profile", "compile"],
        "train (then evaluate), evaluate, profile the training step on these devices, or compile it for absent TPUs.",
    )
    flags.DEFINE_string("slices", aot.DEFAULT_SLICES, "compile: TPU slices, as generation:chips.")
    flags.DEFINE_string("batches", "", "compile: images per chip to try, such as 16,32; empty: the task's defaults.")
    flags.DEFINE_integer("profile_steps", 10, "profile: number of steps in the trace.", lower_bound=1)
    flags.DEFINE_bool("distributed", False, "Join the processes of a Cloud TPU, GKE, Slurm or Open MPI job.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if no cluster says who takes part.")
    flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes.")
    flags.DEFINE_integer("process_id", None, "With --coordinator: number of this process, counted from 0.")
    flags.DEFINE_integer("join_timeout", 120, "Seconds to wait for the other processes at the start.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Run the chosen mode."""
    del argv
    options = flags.FLAGS
    config, name = cli.experiment()
    cli.prepare_runtime()
    processes = distributed.parse(
        cluster=options.distributed,
        coordinator=options.coordinator,
        num_processes=options.num_processes,
        process_id=options.process_id,
    )
    if tasks.kind(config).is_fitted and options.mode in ("profile", "compile"):
        raise UsageError(f"--mode={options.mode}: {config.model.name} is fitted in one piece and has no training step")
    with distributed.joined(processes, options.join_timeout), remote.opened(name, writes=True) as directory:
        distributed.check_alike(config, options.mode, directory)
        _run(options.mode, config, directory)


def _run(mode: str, config: Config, directory: pathlib.Path) -> None:
    options = flags.FLAGS
    if mode == "compile":
        aot.run(config, directory, aot.Options.parse(options.slices, options.batches))
    elif mode == "profile":
        profiling.run(config, directory, options.profile_steps)
    else:
        {"train": loop.train, "evaluate": evaluation.run}[mode](config, directory)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
