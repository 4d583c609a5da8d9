"""`fcrn` at its published width; data and training as in `fcn_published`."""

from configs import fcn_published
from hep2jax.config import Config


def get_config() -> Config:
    config = fcn_published.get_config()
    config.model.name = "fcrn"
    return config
