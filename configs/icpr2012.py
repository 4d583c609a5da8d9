"""What we would send to the ICPR 2012 contest: `dsfcn` on the whole training half, as long as it was judged.

Chosen among the four by leave-specimens-out inside that half (RESULTS.md). `make icpr2012 MANUAL_DIR=DIR` runs it.
"""

from hep2jax.config import Config, check_variant

from . import dsfcn

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = dsfcn.get_config("icpr2012")
    config.data.protocol = "contest"
    return config
