"""The reader to submit to the ICPR 2012 contest for its cells, fitted to the complete training half.

`fisher` learns them along with the cells of I3A Task 1, from `configs/fisher.py:icpr2014_whole`. Its settings were the
best with held-out specimens of the training half (docs/fisher.md). Give the directory of the original files with
--config.data.manual_dir=DIR; the contest's test half is evaluated if it is present. `make icpr2012-cells` runs both.
"""

from hep2jax.config import Config, check_variant

from . import fisher

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = fisher.get_config("icpr2012")
    config.data.protocol = "contest"
    return config
