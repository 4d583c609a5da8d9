"""`resnet` on synthetic cells, shallower and narrower for a CPU.

Variants: as `cnn`, where `published` has the full size; and

* `icpr2014`: ResNet-18 with a quarter of the published width on the I3A Task 1 cells; 45 minutes on two cores. Data,
  lists and grey levels are as in `icpr2014_gao`; rotation by any angle, and predictions averaged over the eight
  dihedral views.
* `icpr2014_full`: the same at the published width, with inputs of 80 pixels, mixup and smoothed labels; two minutes on
  a data-centre GPU.
"""

from hep2jax.config import AugmentConfig, Config, ModelConfig, check_variant

from . import cnn, icpr2014_gao

VARIANTS = (*cnn.VARIANTS, "icpr2014", "icpr2014_full")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    of_i3a = variant.startswith("icpr2014")
    config = icpr2014_gao.get_config() if of_i3a else cnn.get_config(variant)
    published = variant == "published"
    config.model = ModelConfig(name="resnet") if published else ModelConfig(name="resnet", depth=18, width=0.25)
    if of_i3a:
        config.data.crop_size = 64
        config.augment = AugmentConfig(scale_min=0.95, scale_max=1.05, gain=0.0, gamma=0.0, offset=0.0)
        config.optimizer.learning_rate, config.optimizer.weight_decay = 4e-3, 1e-3
        config.train.num_steps, config.train.checkpoint_every = 7000, 1000
        config.evaluation.dihedral = True
    if variant == "icpr2014_full":
        config.model.width, config.data.crop_size = 1.0, 80
        config.augment.mixup, config.loss.label_smoothing = 0.2, 0.1
        config.train.num_steps, config.train.global_batch_size = 10_000, 128
    return config
