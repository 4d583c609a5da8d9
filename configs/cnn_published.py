"""Gao et al.'s CNN on cells cut from whole synthetic camera frames, in batches for GPUs and TPUs."""

from hep2jax.config import Config, OptimizerConfig, TrainConfig

from . import cnn


def get_config() -> Config:
    config = cnn.get_config()
    config.data.builder_config = "specimens_large"
    config.optimizer = OptimizerConfig(learning_rate=4e-3, warmup_steps=500, ema_decay=0.999)
    config.train = TrainConfig(
        num_steps=20_000, global_batch_size=1024, log_every=50, eval_every=1000, checkpoint_every=1000, prefetch=8
    )
    config.evaluation.batch_size = 1024
    return config
