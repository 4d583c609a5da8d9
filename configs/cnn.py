"""The main configuration for cells: the CNN of Gao et al., as published, on cells of the embedded synthetic specimens.

Variants:

* `published`: cells of synthetic fields in full camera size, with batch sizes for GPUs and TPUs.
* `icpr2012`: cells of the ICPR 2012 contest, with cross-validation over the specimens of the contest's training half.
  Experiments are evaluated on these 14 specimens, never on the contest's test half. Give the directory of the
  original files with --config.data.manual_dir=DIR; `scripts.cross_validate` runs all seven folds.
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

VARIANTS = ("published", "icpr2012")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = Config(
        data=DataConfig(
            name="hep2_synthetic", normalise="contrast_stretch", top_percentile=99.5, crop_size=0, balance="pattern"
        ),
        augment=AugmentConfig(rotation_step=9.0, scale_min=0.95, scale_max=1.05, gain=0.0, gamma=0.2, offset=0.0),
        model=ModelConfig(name="gao"),
        optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.99, weight_decay=1e-4),
        train=TrainConfig(num_steps=1500, global_batch_size=64, log_every=50, checkpoint_every=500),
        evaluation=EvaluationConfig(batch_size=256, dihedral=True),
    )
    if variant == "published":
        config.data.builder_config = "specimens_large"
        config.optimizer = OptimizerConfig(learning_rate=4e-3, warmup_steps=500, ema_decay=0.999)
        config.train = TrainConfig(
            num_steps=20_000, global_batch_size=1024, log_every=50, eval_every=1000, checkpoint_every=1000, prefetch=8
        )
        config.evaluation.batch_size = 1024
    elif variant == "icpr2012":
        config.data.name, config.data.builder_config, config.data.channel = "icpr2012", "cells", "green"
        config.data.protocol, config.data.num_folds = "kfold", 7
        config.train.num_steps, config.train.log_every, config.train.checkpoint_every = 500, 100, 500
        config.evaluation.gallery_specimens = 8
    return config
