"""One U-Net that segments, classifies the pattern and grades the intensity, with an eighth of the published width.

Grey levels are not normalised by field, and there is no augmentation of grey levels, because the intensity depends on
them. Variants:

* `published`: synthetic fields in full camera size, with 15 patches of 384 pixels per field; for GPUs and TPUs. As
  published: patches, stitching, batch size, Adam with a learning rate of 1e-4, rotation by multiples of 90 degrees.
  Our choices: the number of steps, and patches at random positions with equal frequency of all patterns.
* `icpr2012`: real specimens; data, protocol and resolution as in `fcn:icpr2012`.
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
    if variant == "published":
        return _published()
    config = Config(
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=128, normalise="none"),
        augment=AugmentConfig(gain=0.0, gamma=0.0, offset=0.0),
        model=ModelConfig(name="joint", width=0.125),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=900, global_batch_size=16),
        evaluation=EvaluationConfig(tile_size=128, tile_overlap=48, batch_size=8),
    )
    if variant == "icpr2012":
        data = config.data
        data.name, data.channel, data.protocol, data.num_folds = "icpr2012", "green", "kfold", 7
        data.scale, data.cut_cell_margin = 0.3125, 77
        config.train.num_steps = 300
    return config


def _published() -> Config:
    return Config(
        data=DataConfig(
            name="hep2_synthetic",
            builder_config="specimens_large",
            crop_size=384,
            normalise="none",
            foreground_crops=0.0,
        ),
        augment=AugmentConfig(
            mirror=False, rotation_step=90.0, scale_min=1.0, scale_max=1.0, gain=0.0, gamma=0.0, offset=0.0
        ),
        model=ModelConfig(name="joint", width=1.0, flatten_side=384),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="constant", warmup_steps=1, weight_decay=0.0, clip_norm=0.0
        ),
        train=TrainConfig(num_steps=5000, global_batch_size=32, log_every=50, eval_every=1000, checkpoint_every=1000),
        evaluation=EvaluationConfig(tile_size=384, tile_overlap=56, batch_size=16),
    )
