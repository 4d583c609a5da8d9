"""The VGG-16 FCN at its published width, on whole synthetic camera frames at full resolution; for GPUs and TPUs."""

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(name="hep2_synthetic", builder_config="specimens_large", crop_size=256),
        model=ModelConfig(name="fcn", width=1.0),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=500, ema_decay=0.999),
        train=TrainConfig(
            num_steps=20_000, global_batch_size=128, log_every=50, eval_every=1000, checkpoint_every=1000, prefetch=8
        ),
        evaluation=EvaluationConfig(tile_size=512, tile_overlap=64, batch_size=32),
    )
