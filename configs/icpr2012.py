"""What we would send to the ICPR 2012 contest: `fcn`, pre-trained by `make train`, on the whole training half.

Settings as judged by leave-specimens-out inside that half (RESULTS.md). `make icpr2012 MANUAL_DIR=DIR` runs both.
"""

from configs import icpr2012_fcn
from hep2jax.config import Config


def get_config() -> Config:
    config = icpr2012_fcn.get_config()
    config.data.protocol = "contest"
    config.model.init_from = "runs/fcn"
    return config
