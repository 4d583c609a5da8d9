"""U-Net baseline (Ronneberger, Fischer, Brox 2015)."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from hep2jax.models.layers import ConvNorm, DenseUp, Head, dropout, scale_channels
from hep2jax.models.network import Settings
from hep2jax.models.segmenter import Segmenter, SegmenterOutput
from hep2jax.ops import max_pool

CHANNELS = (64, 128, 256, 512, 1024)
"""Channels of the five levels: Ronneberger et al. 2015, figure 1."""


class UNet(Segmenter):
    """Encoder and decoder of five levels with concatenated skips.

    Sourced (Ronneberger et al. 2015): two 3x3 convolutions per level, 64 to 1024 channels, 2x2 max pools, 2x2
    up-convolutions that halve the channels, concatenation, 1x1 head, dropout at the end of the contracting path.

    Changed: SAME padding instead of valid, so that the output has the size of the image, and BatchNorm after each
    convolution; practically every later U-Net has both.
    """

    stride: ClassVar[int] = 16

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The published size at `width=1`."""
        super().__init__(settings)
        width, dtype = settings.width, settings.dtype
        levels = [scale_channels(channels, width) for channels in CHANNELS]
        inputs = [settings.in_channels, *levels[:-1]]
        self.down = nnx.List([DoubleConv(a, b, dtype=dtype, rngs=rngs) for a, b in zip(inputs, levels, strict=True)])
        steps = list(zip(levels[:0:-1], levels[-2::-1], strict=True))
        self.lift = nnx.List([DenseUp(a, b, factor=2, dtype=dtype, rngs=rngs) for a, b in steps])
        self.up = nnx.List([DoubleConv(2 * b, b, dtype=dtype, rngs=rngs) for _, b in steps])
        self.head = Head(levels[0], settings.num_outputs, dtype=dtype, rngs=rngs)

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """The way down to stride 16 and up again."""
        skips: list[Array] = []
        x = image
        for index, block in enumerate(self.down):
            x = block(max_pool(x) if index else x, train=train)
            skips.append(x)
        x = dropout(skips.pop(), self.dropout, train=train, rngs=rngs)
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(jnp.concatenate([skips.pop(), lift(x)], axis=-1), train=train)
        return SegmenterOutput(self.head(x))


class DoubleConv(nnx.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, middle: int = 0, dtype: jnp.dtype, rngs: nnx.Rngs):
        """The first convolution gives `middle` channels (0 means `out_channels`), the second gives `out_channels`."""
        middle = middle or out_channels
        self.first = ConvNorm(in_channels, middle, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(middle, out_channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Height and width stay the same."""
        return self.second(self.first(x, train=train), train=train)
