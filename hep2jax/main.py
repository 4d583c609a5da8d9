"""Trains, evaluates, profiles or compiles an experiment. This file is intentionally short.

python -m hep2jax.main --config=configs/fcn.py [--config.<section>.<key>=<value> ...] [--workdir=DIR] [--mode=train]
"""

from collections.abc import Sequence

import jax
from absl import flags

from hep2jax import cli, tasks
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
    flags.DEFINE_bool("distributed", False, "Join the processes of a TPU slice, Slurm or MPI job.")
    flags.DEFINE_string("coordinator", None, "host:port of process 0, if no cluster manager provides it.")
    flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes.")
    flags.DEFINE_integer("process_id", None, "With --coordinator: number of this process, counted from 0.")


def main(argv: Sequence[str]) -> None:
    """Run the chosen mode."""
    del argv
    options = flags.FLAGS
    config, directory = cli.experiment()
    cli.prepare_runtime()
    if options.distributed or options.coordinator:
        jax.distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    if tasks.kind(config).is_fitted and options.mode in ("profile", "compile"):
        raise UsageError(f"--mode={options.mode}: {config.model.name} is fitted in one piece and has no training step")
    if options.mode == "compile":
        aot.run(config, directory, aot.Options.parse(options.slices, options.batches))
    elif options.mode == "profile":
        profiling.run(config, directory, options.profile_steps)
    else:
        {"train": loop.train, "evaluate": evaluation.run}[options.mode](config, directory)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
