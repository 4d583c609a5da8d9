"""Attention-pooled multiple-instance learning: specimens read from tiles, patterns alone are learnt from.

Variants:

* `mixed`: synthetic images of two patterns, one or none.
* `icpr2012`: real specimens; data, protocol and resolution as in `fcn:icpr2012`.
* `aida`: every pattern of each AIDA_HEp-2 image; patients held out in turn. `hep2jax.main` trains one of five folds,
  `scripts.cross_validate` all; a tenth of the patients chooses the checkpoint. Written without the images at hand:
  resolution (that of `icpr2012`, the same magnification is a guess) and length are to be tuned. Drawn as they occur, so
  that probabilities keep to the patterns' shares.
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
