"""AIDA_HEp-2: every pattern of each image, by attention-pooled multiple-instance learning; patients held out in turn.

`hep2jax.main` trains one of five folds, `scripts.cross_validate` all; a tenth of the patients chooses the checkpoint.
Written without the images at hand: resolution (that of `icpr2012`, the same magnification is a guess) and length are
to be tuned. Drawn as they occur, so that probabilities keep to the patterns' shares.
"""

from hep2jax.config import Config

from . import mil


def get_config() -> Config:
    config = mil.get_config()
    data = config.data
    data.name, data.channel, data.scale = "aida", "green", 0.3125
    data.protocol, data.num_folds, data.validation_fraction = "kfold", 5, 0.1
    data.balance = "none"
    config.train.num_steps, config.train.eval_every = 3000, 500
    return config
