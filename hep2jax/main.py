"""Trains, evaluates, profiles or compiles an experiment. This file is intentionally short.

python -m hep2jax.main --config=configs/fcn.py [--config.<section>.<key>=<value> ...] [--workdir=DIR] [--mode=train]
"""

from collections.abc import Sequence

import jax
from absl import flags

from hep2jax import aot, cli, evaluation, profiling, training

cli.define_experiment_flags()
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "profile", "compile"],
    "train (then evaluate), evaluate, profile the step on these devices, or compile for absent TPUs.",
)
_SLICES = flags.DEFINE_string("slices", aot.DEFAULT_SLICES, "compile: TPU slices, as generation:chips.")
_BATCHES = flags.DEFINE_string(
    "batches", "", "compile: images per chip of the sweep, such as 16,32; empty: a usual few."
)
_PROFILE_STEPS = flags.DEFINE_integer("profile_steps", 10, "profile: steps in the trace.", lower_bound=1)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the processes of a TPU slice, Slurm or MPI job.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where no cluster tells it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: number of this process, from 0.")


def main(argv: Sequence[str]) -> None:
    """Dispatch to the mode."""
    del argv
    config, directory = cli.experiment()
    cli.prepare_runtime()
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _MODE.value == "compile":
        aot.run(config, directory, aot.Options.parse(_SLICES.value, _BATCHES.value))
    elif _MODE.value == "profile":
        profiling.run(config, directory, _PROFILE_STEPS.value)
    else:
        {"train": training.run, "evaluate": evaluation.run}[_MODE.value](config, directory)


if __name__ == "__main__":
    cli.run_app(main)
