"""`unet` on real specimens; data, protocol and length as in `icpr2012_fcn`."""

from hep2jax.config import Config

from . import icpr2012_fcn


def get_config() -> Config:
    config = icpr2012_fcn.get_config()
    config.model.name = "unet"
    return config
