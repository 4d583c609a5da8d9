"""Multiple-instance learning with attention pooling: specimens are classified by tiles, with their patterns as labels.

Variants:

* `mixed`: synthetic images with two patterns, one pattern or none.
* `icpr2012`: real specimens; data, protocol and resolution as in `fcn:icpr2012`.
* `aida`: all patterns of each AIDA_HEp-2 image, with cross-validation over patients. `hep2jax.main` trains one of five
  folds, `scripts.cross_validate` all of them; a tenth of the patients is used to select the checkpoint. The images were
  not available when this was written, so resolution and number of steps are not tuned; the resolution is that of
  `icpr2012`, which assumes the same magnification. Images are drawn with their natural frequencies, so that predicted
  probabilities reflect the frequencies of the patterns.
"""

from hep2jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    check_variant,
)

VARIANTS = ("mixed", "icpr2012", "aida")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = Config(
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=64, bag_tiles=8),
        augment=AugmentConfig(gain=0.3, gamma=0.2),
        model=ModelConfig(name="mil", width=0.25),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=1500, global_batch_size=8),
        evaluation=EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=32),
    )
    data, train = config.data, config.train
    if variant == "mixed":
        data.builder_config = "mixed"
        train.num_steps, train.eval_every = 2500, 500
    elif variant == "icpr2012":
        data.name, data.channel, data.scale = "icpr2012", "green", 0.3125
        data.protocol, data.num_folds = "kfold", 7
        train.num_steps = 600
    elif variant == "aida":
        data.name, data.channel, data.scale = "aida", "green", 0.3125
        data.protocol, data.num_folds, data.validation_fraction = "kfold", 5, 0.1
        data.balance = "none"
        train.num_steps, train.eval_every = 3000, 500
    return config
