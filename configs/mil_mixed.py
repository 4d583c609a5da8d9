"""Images of two patterns, one or none, read from tiles by attention-pooled multiple-instance learning; synthetic."""

from hep2jax.config import Config

from . import mil


def get_config() -> Config:
    config = mil.get_config()
    config.data.builder_config = "mixed"
    config.train.num_steps, config.train.eval_every = 2500, 500
    return config
