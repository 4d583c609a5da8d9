"""One U-Net that segments, names the pattern and grades the intensity, an eighth as wide as published.

Grey levels are not normalised field by field and hardly jittered: the intensity is to be seen in them.
"""

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
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=128, normalise="none"),
        augment=AugmentConfig(gain=0.0, gamma=0.0, offset=0.0),
        model=ModelConfig(name="joint", width=0.125),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=900, global_batch_size=16),
        evaluation=EvaluationConfig(tile_size=128, tile_overlap=48, batch_size=8),
    )
