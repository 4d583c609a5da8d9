"""Multiple-instance learning on real specimens; data, protocol and resolution as in `icpr2012_fcn`."""

from hep2jax.config import Config

from . import mil


def get_config() -> Config:
    config = mil.get_config()
    data = config.data
    data.name, data.channel, data.protocol, data.num_folds = "icpr2012", "green", "kfold", 7
    data.scale = 0.3125
    config.train.num_steps = 600
    return config
