"""The CNN of Gao et al. on the I3A Task 1 cells, with rotation by multiples of 9 degrees; seven minutes on one core.

Give the directory of the original files with --config.data.manual_dir=DIR and the lists of the 64/16/20 split with
--config.data.split_lists=DIR. All parts of this split contain cells of the same specimens, so there is specimen
leakage, which the report states. Grey levels are not normalised: contrast stretching, which the paper applies, was
worse on a part of the training list.

Variant `long`: five times as many steps, and predictions averaged over the eight dihedral views; two minutes on a
data-centre GPU.
"""

from hep2jax.config import AugmentConfig, Config, check_variant

from . import cnn

VARIANTS = ("long",)


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = cnn.get_config()
    config.data.name, config.data.protocol = "icpr2014_task1", "holdout"
    config.data.normalise, config.data.balance = "none", "none"
    config.augment = AugmentConfig(rotation_step=9.0, scale_min=1.0, scale_max=1.0, gain=0.0, gamma=0.0, offset=0.0)
    config.optimizer.learning_rate, config.optimizer.ema_decay = 5e-3, 0.999
    config.train.num_steps, config.train.checkpoint_every, config.train.log_every = 8000, 2000, 250
    config.evaluation.dihedral = variant == "long"
    if variant == "long":
        config.train.num_steps = 40_000
    return config
