"""The cell-level main job: Gao et al.'s CNN, as published, on cells cut from the embedded synthetic specimens."""

from hep2jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        data=DataConfig(
            name="hep2_synthetic", normalise="contrast_stretch", top_percentile=99.5, crop_size=78, balance="pattern"
        ),
        augment=AugmentConfig(rotation_step=9.0, scale_min=0.95, scale_max=1.05, gain=0.0, gamma=0.2, offset=0.0),
        model=ModelConfig(name="gao"),
        optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.99, weight_decay=1e-4),
        train=TrainConfig(num_steps=1500, global_batch_size=64, log_every=50, checkpoint_every=500),
        evaluation=EvaluationConfig(batch_size=256, dihedral=True),
    )
