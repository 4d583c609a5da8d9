"""`efficientnet_lite0` on synthetic cells, narrowed for a CPU.

Variants: as `cnn`, where `published` has the full width; and

* `icpr2014`: the full width, starting from the published weights of ImageNet (the extra `pretrained`), on enlarged
  frames of the I3A Task 1 cells, whole specimens held out; a quarter of an hour a fold on one core. Give the directory
  of the original files with --config.data.manual_dir=DIR; `scripts.cross_validate` runs all five folds.

`efficientnet_lite1` and `efficientnet_lite2` are larger: --config.model.name=efficientnet_lite2.
"""

from hep2jax.config import Config, ModelConfig, check_variant

from . import cnn, vggcell

VARIANTS = (*cnn.VARIANTS, "icpr2014")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    if variant == "icpr2014":
        return _across_specimens()
    config = cnn.get_config(variant)
    config.data.crop_size = 0 if variant == "published" else 64
    config.model = ModelConfig(name="efficientnet_lite0", width=1.0 if variant == "published" else 0.25)
    return config


def _across_specimens() -> Config:
    config = vggcell.get_config("icpr2014")
    # The filters were learned on objects larger than cells of 50 pixels.
    config.data.scale, config.data.crop_size = 1.5, 96
    config.model = ModelConfig(name="efficientnet_lite0", dropout=0.4, regions=True, init_from="imagenet")
    config.optimizer.learning_rate = 1e-3
    config.train.num_steps, config.train.global_batch_size = 300, 64
    config.train.checkpoint_every = 300
    return config
