"""DCR-Net, the deep cross residual network (Shen, Jia, Li, Pattern Recognition 82, 2018)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.classifier import Description, PoolingClassifier
from hep2jax.models.layers import ConvNorm, scale_channels
from hep2jax.models.network import Settings
from hep2jax.models.residual import BASIC_STAGE_CHANNELS, STEM_CHANNELS, ResidualModule, basic

DEPTHS = (3, 3, 3, 3)
"""Cross residual blocks of each stage: 1 + 2 * 12 + 1 = 26 layers."""


class DcrNet(PoolingClassifier):
    """A residual network whose blocks also see the input of the block before.

    Sourced: a "cross connection based residual block" that increases the flow of information among different layers,
    trained from scratch.

    Our reading, because wiring and depth are not public:
    * block k adds a third path to its residual branch and its shortcut: the input of block k-1, through a 1x1
      projection with BatchNorm, whose scale starts at 0. Each feature map thus reaches the next two blocks directly,
      and training starts from a plain residual network. With identities in place of projections the maps would grow by
      the golden ratio from block to block;
    * four stages of three blocks of two 3x3 convolutions, 64 to 512 channels, and the stem of `resnet`.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, depths: tuple[int, ...] = DEPTHS):
        """The size above at `width=1` and with these depths."""
        super().__init__(settings)
        channels = earlier = scale_channels(STEM_CHANNELS, settings.width)
        self.stem = ConvNorm(settings.in_channels, channels, 5, stride=2, dtype=self.dtype, rngs=rngs)
        self.blocks: nnx.List[CrossBlock] = nnx.List()
        lag = 1
        for stage, (depth, published) in enumerate(zip(depths, BASIC_STAGE_CHANNELS, strict=True)):
            out = scale_channels(published, settings.width)
            for position in range(depth):
                stride = 2 if stage and not position else 1
                block = CrossBlock(channels, earlier, out, stride=stride, lag=lag, dtype=self.dtype, rngs=rngs)
                self.blocks.append(block)
                channels, earlier, lag = out, channels, stride
        self.make_heads(settings, self.count_averages([channels]), rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        x = earlier = self.stem(image, train=train)
        for block in self.blocks:
            x, earlier = block(x, earlier, train=train), x
        return Description(self.average([x], image))


class CrossBlock(nnx.Module):
    """A residual module of two 3x3 convolutions, and a cross connection from the input of the block before."""

    def __init__(
        self,
        in_channels: int,
        earlier_channels: int,
        out_channels: int,
        *,
        stride: int,
        lag: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """`lag` is the stride of the block before: its input is larger than this block's by that factor."""
        self.module = ResidualModule(in_channels, basic(out_channels), stride=stride, dtype=dtype, rngs=rngs)
        self.cross = ConvNorm(
            earlier_channels,
            out_channels,
            1,
            stride=stride * lag,
            relu=False,
            zero_scale=True,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Array, earlier: Array, *, train: bool) -> Array:
        """Height and width of `x` divided by the stride."""
        return nnx.relu(self.module.unrectified(x, train=train) + self.cross(earlier, train=train))
