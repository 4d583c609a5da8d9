"""Flags and modes. This file is intentionally short.

python -m hep2jax.main --config=configs/fcn.py [--config.<section>.<key>=<value> ...] [--workdir=DIR] [--mode=train]
"""

from collections.abc import Sequence

import jax
from absl import flags

from hep2jax import cli, evaluate, train

cli.define_experiment_flags()
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "train (then evaluate), or evaluate alone.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the processes of a TPU slice, Slurm or MPI job.")


def main(argv: Sequence[str]) -> None:
    """Dispatch to the mode."""
    del argv
    config, directory = cli.experiment()
    cli.prepare_runtime()
    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    {"train": train.run, "evaluate": evaluate.run}[_MODE.value](config, directory)


if __name__ == "__main__":
    cli.run_app(main)
