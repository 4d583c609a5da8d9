"""The U-Net baseline on synthetic specimens, with an eighth of the published width. Variants: as `fcn`."""

from hep2jax.config import Config

from . import fcn

VARIANTS = fcn.VARIANTS


def get_config(variant: str = "") -> Config:
    config = fcn.get_config(variant)
    config.model.name = "unet"
    return config
