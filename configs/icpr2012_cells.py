"""The reader to submit to the ICPR 2012 contest for its cells: the mean of a texture reader and of networks.

`make icpr2012-cells` runs everything. The variants are its parts, each on the complete training half:

* `texture`: `fisher`, learned along with the cells of I3A Task 1 from `configs/fisher.py:icpr2014_whole`.
* `network`: `gao`, pre-trained on these cells by `configs/icpr2014_pretraining.py`.
* `networks`: the mean of three of them, with the seeds 0, 1 and 2.

With --config.data.protocol=loso one specimen of the training half is held out instead. Give the directory of the
original files with --config.data.manual_dir=DIR; the contest's test half is evaluated if it is present.
"""

from collections.abc import Iterable

from hep2jax.config import Config, ModelConfig, check_variant

from . import fisher, icpr2014_pretraining

VARIANTS = ("texture", "network", "networks")
SEEDS = range(3)
_RUNS = "runs/icpr2012_cells"


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    if variant == "texture":
        config = fisher.get_config("icpr2012")
    elif variant == "network":
        config = _network()
    elif variant == "networks":
        config = mean_of(f"{_RUNS}-network-{seed}" for seed in SEEDS)
    else:
        config = mean_of([f"{_RUNS}-texture", f"{_RUNS}-networks"])
    data = config.data
    data.name, data.builder_config, data.channel, data.protocol = "icpr2012", "cells", "green", "contest"
    return config


def _network() -> Config:
    config = icpr2014_pretraining.get_config()
    config.model.init_from = "runs/icpr2014_pretraining"
    config.optimizer.learning_rate, config.loss.label_smoothing = 2.5e-4, 0.1
    config.train.num_steps, config.train.checkpoint_every, config.train.log_every = 400, 400, 100
    config.evaluation.dihedral = True
    return config


def mean_of(members: Iterable[str]) -> Config:
    """The mean of the readers in these work directories."""
    return Config(model=ModelConfig(name="mean", members=",".join(members)))
