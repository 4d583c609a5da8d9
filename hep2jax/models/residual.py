"""Residual modules and trunks, shared by several networks (He, Zhang, Ren, Sun 2016)."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from hep2jax.errors import UsageError
from hep2jax.models.layers import ConvNorm, scale_channels
from hep2jax.models.network import Settings

STEM_CHANNELS = 64
STAGE_CHANNELS = (256, 512, 1024, 2048)
"""Channels after conv2_x to conv5_x of the published ResNet-50 and deeper."""
BASIC_STAGE_CHANNELS = (64, 128, 256, 512)
"""Channels after conv2_x to conv5_x of ResNet-18 and -34."""

Profile = tuple[tuple[int, int], ...]
"""(channels, side of the kernel) of each convolution of a residual module; the last gives the module's output."""


def basic(channels: int) -> Profile:
    """The module of ResNet-18 and -34: two 3x3 convolutions (He et al. 2016, figure 5)."""
    return (channels, 3), (channels, 3)


def bottleneck(channels: int) -> Profile:
    """The module of ResNet-50: 1x1 to a quarter of the channels, 3x3, 1x1 back (He et al. 2016, figure 5)."""
    return (channels // 4, 1), (channels // 4, 3), (channels, 1)


def sand_clock(channels: int) -> Profile:
    """Narrow in the middle: 1x1 to a quarter of the channels, 3x3 to an eighth, 3x3 to a quarter, 1x1 back.

    Li, Shen, Yu 2017 give the module this name and say that it improves FCRN "effectively and economically"; its wiring
    is not public. Our reading: the two 3x3 convolutions through an eighth of the channels have exactly as many weights
    as the single one of the bottleneck, so the module is one layer deeper and has a larger receptive field at the same
    cost.
    """
    return (channels // 4, 1), (channels // 8, 3), (channels // 4, 3), (channels, 1)


VARIANTS = {
    18: ((2, 2, 2, 2), basic, BASIC_STAGE_CHANNELS),
    34: ((3, 4, 6, 3), basic, BASIC_STAGE_CHANNELS),
    50: ((3, 4, 6, 3), bottleneck, STAGE_CHANNELS),
}
"""Number of modules in each stage, the module, and the channels of the stages, by depth (He et al. 2016, table 1)."""


class ResidualModule(nnx.Module):
    """Convolutions of a profile, added to the input.

    The scale of the last norm starts at 0, so that each module starts as the identity (Goyal et al. 2017); deep trunks
    then train from scratch without a special schedule. The first 3x3 convolution has the stride. The shortcut is the
    identity, or a 1x1 projection if the shape changes.
    """

    def __init__(self, in_channels: int, profile: Profile, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        """A module from `in_channels` to the channels of the profile's last convolution."""
        channels, out_channels, pending = in_channels, profile[-1][0], stride
        self.branch: nnx.List[ConvNorm] = nnx.List()
        for index, (out, kernel) in enumerate(profile):
            last, step = index == len(profile) - 1, pending if kernel > 1 else 1
            conv = ConvNorm(channels, out, kernel, stride=step, relu=not last, zero_scale=last, dtype=dtype, rngs=rngs)
            self.branch.append(conv)
            channels, pending = out, pending // step
        changes = stride != 1 or in_channels != out_channels
        self.projection = (
            ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False, dtype=dtype, rngs=rngs)
            if changes
            else None
        )

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Height and width are divided by the stride."""
        return nnx.relu(self.unrectified(x, train=train))

    def unrectified(self, x: Array, *, train: bool) -> Array:
        """Branch plus shortcut, for modules that add more before the last ReLU."""
        shortcut = x if self.projection is None else self.projection(x, train=train)
        for conv in self.branch:
            x = conv(x, train=train)
        return shortcut + x


class ResidualTrunk(nnx.Module):
    """A stem, then four stages of residual modules; each stage except the first halves the resolution.

    There are two stems. The published one, a 7x7 convolution of stride 2 and a max pool, is designed for 224 pixels and
    gives features at strides 4, 8, 16 and 32. The one for the 80 pixels of a cell (`fine`) is only a 5x5 convolution of
    stride 2 and gives features at strides 2, 4, 8 and 16. The pool is 2x2 instead of the published overlapping 3x3: the
    result has the same size, and the gradient is an order of magnitude faster on CPU (`ops.max_pool`).

    Attributes:
        channels: channels of the four feature maps.
    """

    def __init__(
        self,
        settings: Settings,
        depths: tuple[int, ...],
        profile: Callable[[int], Profile],
        *,
        stage_channels: tuple[int, ...] = STAGE_CHANNELS,
        fine: bool = False,
        rngs: nnx.Rngs,
    ):
        """`depths` are the numbers of modules in each stage; `profile` is `basic`, `bottleneck` or `sand_clock`."""
        width, dtype = settings.width, settings.dtype
        channels = scale_channels(STEM_CHANNELS, width)
        self.stem = ConvNorm(settings.in_channels, channels, 5 if fine else 7, stride=2, dtype=dtype, rngs=rngs)
        self.pooled = not fine
        self.stages: nnx.List[nnx.List[ResidualModule]] = nnx.List()
        outputs: list[int] = []
        for index, (depth, published) in enumerate(zip(depths, stage_channels, strict=True)):
            scaled = tuple((scale_channels(count, width), kernel) for count, kernel in profile(published))
            modules: list[ResidualModule] = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                modules.append(ResidualModule(channels, scaled, stride=stride, dtype=dtype, rngs=rngs))
                channels = scaled[-1][0]
            self.stages.append(nnx.List(modules))
            outputs.append(channels)
        self.channels = tuple(outputs)

    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        """Feature maps of the four stages, from fine to coarse."""
        features: list[Array] = []
        x = self.stem(x, train=train, pool=self.pooled)
        for stage in self.stages:
            for module in stage:
                x = module(x, train=train)
            features.append(x)
        return features


def resnet_trunk(
    settings: Settings, depth: int, *, fine: bool = False, modules: tuple[int, ...] = (), rngs: nnx.Rngs
) -> ResidualTrunk:
    """The trunk of the ResNet of this depth; `fine` as in `ResidualTrunk`; `modules` are fewer or more in each stage.

    Raises:
        UsageError: there is no variant of this depth.
    """
    if depth not in VARIANTS:
        raise UsageError(f"model.depth={depth}: must be 0 or one of {', '.join(map(str, VARIANTS))}")
    depths, profile, channels = VARIANTS[depth]
    return ResidualTrunk(settings, modules or depths, profile, stage_channels=channels, fine=fine, rngs=rngs)
