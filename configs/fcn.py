"""The main configuration: a VGG-16 FCN with an eighth of the published width, on the embedded synthetic specimens.

Training takes minutes on a CPU.

Variants:

* `published`: the published width, on synthetic fields in full camera size and resolution; for GPUs and TPUs.
* `icpr2012`: real specimens of ICPR 2012 (40x); cross-validation inside the training half, two specimens held out.
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
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=128),
        augment=AugmentConfig(),
        model=ModelConfig(name="fcn", width=0.125),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=1200, global_batch_size=16),
        evaluation=EvaluationConfig(tile_size=224, tile_overlap=32, batch_size=8),
    )
    if variant == "icpr2012":
        _use_icpr2012(config)
    return config


def _published() -> Config:
    return Config(
        data=DataConfig(name="hep2_synthetic", builder_config="specimens_large", crop_size=256),
        model=ModelConfig(name="fcn", width=1.0),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=500, ema_decay=0.999),
        train=TrainConfig(
            num_steps=20_000, global_batch_size=128, log_every=50, eval_every=1000, checkpoint_every=1000, prefetch=8
        ),
        evaluation=EvaluationConfig(tile_size=512, tile_overlap=64, batch_size=32),
    )


def _use_icpr2012(config: Config) -> None:
    data = config.data
    data.name, data.channel, data.protocol, data.num_folds = "icpr2012", "green", "kfold", 7
    # With this scale, the nuclei (77 px) have the same size as those of the synthetic specimens.
    data.scale = 0.3125
    config.train.num_steps = 300
    # The annotation omits all cells that the image border cuts: they are excluded from training and from predictions.
    data.cut_cell_margin = 77
    config.evaluation.nuclear_diameter = 77.0
    config.evaluation.dihedral = True
    config.evaluation.drop_cut_cells = config.evaluation.baselines = True
    config.evaluation.min_object_pixels = 450  # a tenth of a nucleus, as in the classical baseline
