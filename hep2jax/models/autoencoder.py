"""Convolutional encoder and decoder, shared by `dacn` and `dcae`."""

import functools

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hep2jax.models.layers import BatchNorm, scale_channels
from hep2jax.models.network import Settings
from hep2jax.ops import doubled_conv2d, max_pool

EncoderTable = tuple[tuple[tuple[int, int], ...], ...]
"""(channels, side of the kernel) of each convolution, by stage."""


class Encoder(nnx.Module):
    """Stages that each consist of convolutions with bias and ReLU, a 2x2 max pool and BatchNorm.

    Attributes:
        channels: number of channels of the code.
    """

    def __init__(self, table: EncoderTable, settings: Settings, *, rngs: nnx.Rngs):
        """`table` gives the channels at `width=1`."""
        conv = functools.partial(_convolution, dtype=settings.dtype, rngs=rngs)
        self.stages: nnx.List[nnx.List[nnx.Conv]] = nnx.List()
        self.norms: nnx.List[BatchNorm] = nnx.List()
        channels = settings.in_channels
        for stage in table:
            convs: list[nnx.Conv] = []
            for published, side in stage:
                out = scale_channels(published, settings.width)
                convs.append(conv(channels, out, side))
                channels = out
            self.stages.append(nnx.List(convs))
            self.norms.append(BatchNorm(channels))
        self.channels = channels

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 k"]:
        """The code; each stage halves height and width."""
        for convs, norm in zip(self.stages, self.norms, strict=True):
            for conv in convs:
                x = nnx.relu(conv(x))
            x = norm(max_pool(x), train=train)
        return x


class Decoder(nnx.Module):
    """3x3 convolutions with bias and ReLU, each followed by doubling of the pixels, and one to the image's channels."""

    def __init__(self, channels: tuple[int, ...], settings: Settings, *, code: int, last_side: int, rngs: nnx.Rngs):
        """From `code` channels through `channels` (at width 1); `last_side` is the side of the last kernel."""
        widths = [code, *(scale_channels(published, settings.width) for published in channels)]
        conv = functools.partial(_convolution, dtype=settings.dtype, rngs=rngs)
        self.first = conv(widths[0], widths[1], 3)
        self.middle = nnx.List([conv(a, b, 3, doubled=True) for a, b in zip(widths[1:], widths[2:], strict=False)])
        self.last = conv(widths[-1], settings.in_channels, last_side, doubled=True)

    def __call__(self, code: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        """The image; each of the `channels` doubles height and width."""
        x = nnx.relu(self.first(code))
        for conv in self.middle:
            x = nnx.relu(conv(x))
        return self.last(x)


def _convolution(
    in_channels: int, out_channels: int, side: int, *, doubled: bool = False, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        in_channels,
        out_channels,
        (side, side),
        dtype=dtype,
        kernel_init=nnx.initializers.he_normal(),
        conv_general_dilated=doubled_conv2d if doubled else lax.conv_general_dilated,
        rngs=rngs,
    )
