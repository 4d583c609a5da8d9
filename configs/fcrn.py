"""FCRN (Li, Shen, Yu 2017), an eighth as wide as published, on synthetic specimens. Variants: those of `fcn`."""

from hep2jax.config import Config

from . import fcn

VARIANTS = fcn.VARIANTS


def get_config(variant: str = "") -> Config:
    config = fcn.get_config(variant)
    config.model.name = "fcrn"
    return config
