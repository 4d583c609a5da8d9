"""What we would send to the ICPR 2012 contest: the U-Net on the whole training half, as many passes as were judged.

Chosen among the four by leave-specimens-out inside that half (RESULTS.md). `make icpr2012 MANUAL_DIR=DIR` runs it.
"""

from configs import icpr2012_unet
from hep2jax.config import Config


def get_config() -> Config:
    config = icpr2012_unet.get_config()
    config.data.protocol = "contest"
    return config
