"""FCRN (Li, Shen, Yu 2017), an eighth as wide as published, on the embedded synthetic specimens."""

from hep2jax.config import Config

from . import fcn


def get_config() -> Config:
    config = fcn.get_config()
    config.model.name = "fcrn"
    return config
