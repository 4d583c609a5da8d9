"""Train and measure every fold of data.protocol (kfold or loso) and pool the figures.

python -m scripts.cross_validate --config=configs/icpr2012_fcn.py --config.data.manual_dir=DIR --workdir=DIR
"""

import json
from collections.abc import Sequence

from hep2jax import cli, folds, results

cli.define_experiment_flags()


def main(argv: Sequence[str]) -> None:
    """Run the folds, then print the pooled table and, last, one JSON object."""
    del argv
    config, directory = cli.experiment()
    cli.prepare_runtime()
    figures = folds.run(config, directory)
    for name, baseline in figures.get("baselines", {}).items():
        print(results.describe_pixels(name, baseline["pixel"]))
    print(results.describe_pixels(config.model.name, figures["pixel"]))
    print(json.dumps({"model": config.model.name, "protocol": figures["protocol"], **results.summary(figures)}))


if __name__ == "__main__":
    cli.run_app(main)
