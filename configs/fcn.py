"""The main job: a VGG-16 FCN, an eighth as wide as published, on the embedded synthetic specimens; minutes on a CPU."""

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
        data=DataConfig(name="hep2_synthetic", scale=0.5, crop_size=128),
        augment=AugmentConfig(),
        model=ModelConfig(name="fcn", width=0.125),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        train=TrainConfig(num_steps=1200, global_batch_size=16),
        evaluation=EvaluationConfig(tile_size=224, tile_overlap=32, batch_size=8),
    )
