"""Gao et al.'s CNN on all I3A Task 1 cells, to start from on other cells; six minutes on one core.

Across specimens the exposure misleads: cells are stretched, framed alike by their masks, and turned. Name
the owner's files with --config.data.manual_dir=DIR. There is no side left to measure on but the one it is trained on.
"""

from hep2jax.config import Config, check_variant

from . import icpr2014_gao

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = icpr2014_gao.get_config()
    config.data.protocol, config.data.normalise, config.data.balance = "contest", "contrast_stretch", "pattern"
    config.data.cell_margin = 0.1
    config.augment.gamma, config.augment.scale_min, config.augment.scale_max = 0.2, 0.9, 1.1
    config.train.num_steps = 4000
    return config
