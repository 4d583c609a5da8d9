"""ResNet-18, a quarter as wide as published, on the I3A Task 1 cells; three quarters of an hour on two cores.

Data, lists and grey levels as in `icpr2014_gao`; any angle, predictions averaged over the eight dihedral views.
"""

from hep2jax.config import AugmentConfig, Config

from . import icpr2014_gao


def get_config() -> Config:
    config = icpr2014_gao.get_config()
    config.data.crop_size = 64
    config.model.name, config.model.depth, config.model.width = "resnet", 18, 0.25
    config.augment = AugmentConfig(scale_min=0.95, scale_max=1.05, gain=0.0, gamma=0.0, offset=0.0)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 4e-3, 1e-3
    config.train.num_steps, config.train.checkpoint_every = 7000, 1000
    config.evaluation.dihedral = True
    return config
