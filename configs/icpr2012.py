"""What we would send to the ICPR 2012 contest: `dsfcn` on the whole training half, as long as it was judged.

Chosen among the four by leave-specimens-out inside that half (RESULTS.md). `make icpr2012 MANUAL_DIR=DIR` runs it.
"""

from hep2jax.config import Config

from . import icpr2012_dsfcn


def get_config() -> Config:
    config = icpr2012_dsfcn.get_config()
    config.data.protocol = "contest"
    return config
