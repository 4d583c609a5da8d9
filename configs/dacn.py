"""`dacn` on synthetic cells, narrowed for a CPU. Variants: as `cnn`; `published` has the full width."""

from hep2jax.config import Config, ModelConfig

from . import cnn

VARIANTS = cnn.VARIANTS


def get_config(variant: str = "") -> Config:
    config = cnn.get_config(variant)
    config.model = ModelConfig(name="dacn", width=1.0 if variant == "published" else 0.5)
    return config
