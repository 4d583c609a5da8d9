"""The networks: `build` makes the one that a configuration names."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx

from hep2jax.config import ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models.dsfcn import Dsfcn
from hep2jax.models.fcn import Fcn
from hep2jax.models.fcrn import Fcrn
from hep2jax.models.segmenter import Segmenter, SegmenterOutput
from hep2jax.models.unet import UNet

__all__ = ["SEGMENTERS", "Segmenter", "SegmenterOutput", "build"]

SEGMENTERS: dict[str, Callable[..., Segmenter]] = {"fcn": Fcn, "fcrn": Fcrn, "dsfcn": Dsfcn, "unet": UNet}
"""Network of each `model.name`."""


def build(config: ModelConfig, *, num_outputs: int, in_channels: int, rngs: nnx.Rngs, dtype: jnp.dtype) -> Segmenter:
    """Make a network with fresh parameters.

    Args:
        config: name, width and drop rate.
        num_outputs: number of patterns + 1; channel 0 is background.
        in_channels: channels of the image, 1 or 3.
        rngs: needs the stream `params` (or a default one).
        dtype: compute dtype, float32 or bfloat16; parameters and BatchNorm statistics are float32 in either case.

    Returns:
        A module that splits into `nnx.Param` and `nnx.BatchStat` with nothing left over.

    Raises:
        UsageError: unknown name.
    """
    if config.name not in SEGMENTERS:
        raise UsageError(f"model.name='{config.name}': must be one of {', '.join(SEGMENTERS)}")
    return SEGMENTERS[config.name](
        width=config.width,
        num_outputs=num_outputs,
        in_channels=in_channels,
        dropout=config.dropout,
        dtype=dtype,
        rngs=rngs,
    )
