"""`dsrn` on synthetic cells, shallower and narrower for a CPU. Variants: as `cnn`; `published` has the full size."""

from hep2jax.config import Config, ModelConfig

from . import cnn

VARIANTS = cnn.VARIANTS


def get_config(variant: str = "") -> Config:
    config = cnn.get_config(variant)
    published = variant == "published"
    config.model = ModelConfig(name="dsrn") if published else ModelConfig(name="dsrn", depth=18, width=0.25)
    return config
