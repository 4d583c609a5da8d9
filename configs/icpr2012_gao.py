"""Gao et al.'s CNN on the ICPR 2012 contest cells: leave-specimens-out inside the contest's training half.

What is tried on these 14 specimens is judged on them, never on the contest's test half. Name the owner's files with
--config.data.manual_dir=DIR; `scripts.cross_validate` runs all seven folds.
"""

from hep2jax.config import Config

from . import cnn


def get_config() -> Config:
    config = cnn.get_config()
    config.data.name, config.data.builder_config = "icpr2012", "cells"
    config.data.protocol, config.data.num_folds = "kfold", 7
    config.data.channel = "green"
    config.train.num_steps, config.train.log_every, config.train.checkpoint_every = 500, 100, 500
    config.evaluation.gallery_specimens = 8
    return config
