"""`vggcell` on synthetic cells, narrowed for a CPU.

Variants: as `cnn`, where `published` has the full width; and

* `icpr2014`: half the width on frames of the I3A Task 1 cells with averages over their regions, whole specimens held
  out; half a minute a fold on a data-centre GPU. Give the directory of the original files with
  --config.data.manual_dir=DIR; `scripts.cross_validate` runs all five folds.
"""

from hep2jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    check_variant,
)

from . import cnn

VARIANTS = (*cnn.VARIANTS, "icpr2014")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    if variant == "icpr2014":
        return _across_specimens()
    config = cnn.get_config(variant)
    config.model = ModelConfig(name="vggcell", width=1.0 if variant == "published" else 0.25)
    return config


def _across_specimens() -> Config:
    return Config(
        data=DataConfig(
            name="icpr2014_task1",
            protocol="kfold",
            num_folds=5,
            cell_fit="frame",
            crop_size=64,
            normalise="none",
            balance="pattern",
        ),
        augment=AugmentConfig(
            scale_min=0.85, scale_max=1.18, gain=0.3, gamma=0.3, offset=0.05, blur=1.0, noise=2.0, shift=0.03
        ),
        model=ModelConfig(name="vggcell", width=0.5, dropout=0.4, regions=True),
        loss=LossConfig(label_smoothing=0.05),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.05, ema_decay=0.99),
        train=TrainConfig(num_steps=1500, global_batch_size=192, log_every=100, checkpoint_every=500),
        evaluation=EvaluationConfig(batch_size=256, dihedral=True),
    )
