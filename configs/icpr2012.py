"""The network to submit to the ICPR 2012 contest: `dsfcn` on the complete training half.

It was selected among four networks by cross-validation inside the training half (RESULTS.md), and is trained for the
same number of steps.
`make icpr2012 MANUAL_DIR=DIR` runs it.
"""

from hep2jax.config import Config, check_variant

from . import dsfcn

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = dsfcn.get_config("icpr2012")
    config.data.protocol = "contest"
    return config
