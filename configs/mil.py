"""Attention-pooled multiple-instance learning: specimens read from tiles, patterns alone are learnt from."""

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
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=64, bag_tiles=8),
        augment=AugmentConfig(gain=0.3, gamma=0.2),
        model=ModelConfig(name="mil", width=0.25),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=1500, global_batch_size=8),
        evaluation=EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=32),
    )
