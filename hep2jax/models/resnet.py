"""Residual trunks shared by `fcrn` and `dsfcn` (He, Zhang, Ren, Sun 2016)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from hep2jax.models.layers import ConvNorm, max_pool, scale_channels

STEM_CHANNELS = 64
STAGE_CHANNELS = (256, 512, 1024, 2048)
"""Channels after conv2_x to conv5_x, at strides 4, 8, 16 and 32."""


class ResidualModule(nnx.Module):
    """1x1 reduce, 3x3, 1x1 expand, added to the input: wide, narrow in the middle, wide.

    The scale of the last norm starts at 0, so that each module starts as the identity (Goyal et al. 2017): deep trunks
    then train from scratch without a special schedule. The 3x3 convolution carries the stride. The shortcut is
    the identity, or a 1x1 projection where the shape changes.
    """

    def __init__(
        self, in_channels: int, middle: int, out_channels: int, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Channels of the input, of the narrow middle and of the output."""
        self.reduce = ConvNorm(in_channels, middle, 1, dtype=dtype, rngs=rngs)
        self.middle = ConvNorm(middle, middle, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.expand = ConvNorm(middle, out_channels, 1, relu=False, zero_scale=True, dtype=dtype, rngs=rngs)
        self.projection = None
        if stride != 1 or in_channels != out_channels:
            self.projection = ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Height and width divided by the stride."""
        shortcut = x if self.projection is None else self.projection(x, train=train)
        x = self.middle(self.reduce(x, train=train), train=train)
        return nnx.relu(shortcut + self.expand(x, train=train))


class ResidualTrunk(nnx.Module):
    """7x7 stem of stride 2, max pool, then four stages of residual modules; features at strides 4, 8, 16 and 32.

    The pool is 2x2 instead of the published overlapping 3x3: same size, no parameters, and a gradient that is an
    order of magnitude faster on CPU (`layers.max_pool`).
    """

    def __init__(
        self, depths: tuple[int, ...], *, width: float, in_channels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """`depths`: number of modules of each stage; the middle of a module has a quarter of its stage's channels."""
        channels = scale_channels(STEM_CHANNELS, width)
        self.stem = ConvNorm(in_channels, channels, 7, stride=2, dtype=dtype, rngs=rngs)
        stages = []
        for index, depth in enumerate(depths):
            out, middle = (scale_channels(STAGE_CHANNELS[index] // part, width) for part in (1, 4))
            modules = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                modules.append(ResidualModule(channels, middle, out, stride=stride, dtype=dtype, rngs=rngs))
                channels = out
            stages.append(nnx.List(modules))
        self.stages = nnx.List(stages)

    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        """Feature maps of the four stages, fine to coarse."""
        x, features = max_pool(self.stem(x, train=train)), []
        for stage in self.stages:
            for module in stage:
                x = module(x, train=train)
            features.append(x)
        return features
