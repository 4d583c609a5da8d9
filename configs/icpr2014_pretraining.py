"""The CNN of Gao et al. on all I3A Task 1 cells, as pre-training for other cells; six minutes on one core.

Exposure differs between specimens and is misleading, so the contrast of cells is stretched; cells are cropped to their
masks and rotated. Give the directory of the original files with --config.data.manual_dir=DIR. All cells are in the
training split, so it is the only split that can be evaluated.
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
