"""Train and measure every fold of data.protocol (kfold, loso, blocked, random_cells) and pool the figures.

python -m scripts.cross_validate --config=configs/fcn.py:icpr2012 --config.data.manual_dir=DIR --workdir=DIR

Run again after an interruption, it goes on where it stopped. A finished fold that was last measured on other data or
with other settings (`--mode=evaluate`, `evaluation.*`) is measured again; one trained on other data is refused.
"""

import json
from collections.abc import Sequence

from hep2jax import cli, folds

cli.define_experiment_flags()


def main(argv: Sequence[str]) -> None:
    """Run the folds, then print the pooled table and, last, one JSON object."""
    del argv
    config, directory = cli.experiment()
    cli.prepare_runtime()
    task, figures = folds.run(config, directory)
    for line in task.details(figures):
        print(line)
    said = {name: figures[name] for name in ("protocol", "specimen_leakage")}
    print(json.dumps({"model": config.model.name, **said, **task.summary(figures)}))


if __name__ == "__main__":
    cli.run_app(main)
