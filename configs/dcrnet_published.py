"""`dcrnet` at its full width; data and training as in `cnn_published`."""

from hep2jax.config import Config

from . import cnn_published


def get_config() -> Config:
    config = cnn_published.get_config()
    config.data.crop_size = 80
    config.model.name, config.model.width = "dcrnet", 1.0
    return config
