"""`dri` on synthetic cells, narrow enough for a CPU."""

from hep2jax.config import Config

from . import cnn


def get_config() -> Config:
    config = cnn.get_config()
    config.data.crop_size = 80
    config.model.name, config.model.width = "dri", 0.125
    return config
