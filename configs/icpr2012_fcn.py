"""The FCN on real specimens: ICPR 2012 (40x), leave-specimens-out inside the training half, two at a time."""

from hep2jax.config import Config

from . import fcn


def get_config() -> Config:
    config = fcn.get_config()
    data = config.data
    data.name, data.channel, data.protocol, data.num_folds = "icpr2012", "green", "kfold", 7
    # The nuclei (77 px) get the size that those of the synthetic specimens have at their working resolution.
    data.scale = 0.3125
    config.train.num_steps = 300
    # The annotators left out every cell that the frame cuts: no training on them, and none counted as found.
    data.cut_cell_margin = 77
    config.evaluation.nuclear_diameter = 77.0
    config.evaluation.dihedral = True
    config.evaluation.drop_cut_cells = config.evaluation.baselines = True
    config.evaluation.min_object_pixels = 450  # a tenth of a nucleus, as in the classical baseline
    return config
