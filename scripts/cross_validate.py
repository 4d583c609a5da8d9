"""Trains and evaluates every fold of data.protocol (kfold, loso, blocked, random_cells) and pools the metrics.

python -m scripts.cross_validate --config=configs/fcn.py:icpr2012 --config.data.manual_dir=DIR --workdir=DIR

After an interruption, the same command continues. A finished fold that was last evaluated on other data or with other
settings (`--mode=evaluate`, `evaluation.*`) is evaluated again; a fold that was trained on other data is an error.
"""

import json
from collections.abc import Sequence

from hep2jax import cli, remote
from hep2jax.training import folds

cli.define_experiment_flags()


def main(argv: Sequence[str]) -> None:
    """Run the folds, then print the pooled table and, as the last line, one JSON object."""
    del argv
    config, name = cli.experiment()
    cli.prepare_runtime()
    with remote.opened(name, writes=True) as directory:
        task, pooled = folds.run(config, directory)
    for line in task.details(pooled.measured):
        print(line)
    conditions = {"protocol": pooled.protocol, "specimen_leakage": pooled.specimen_leakage}
    print(json.dumps({"model": config.model.name, **conditions, **task.summary(pooled.measured)}))


if __name__ == "__main__":
    cli.run_app(main)
