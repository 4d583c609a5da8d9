# pyright: reportUnknownMemberType=false
"""DRI, the deep residual inception network (Li and Shen, DLMIA 2017, doi 10.1007/978-3-319-67558-9_2)."""

from typing import cast

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.classifier import Description, PoolingClassifier
from hep2jax.models.layers import ConvNorm, scale_channels
from hep2jax.models.network import Settings
from hep2jax.models.residual import STEM_CHANNELS, ResidualModule

STAGES = (256, 512, 1024)
"""Channels of the shallow, medium and deep stage."""
MODULES = 2
"""Residual inception modules of each stage."""


SHARES = (1 / 4, 1 / 2, 1 / 8, 1 / 8)
"""Share of each branch in the channels of a module, as in GoogLeNet's first module: 64, 128, 32 and 32 of 256 (Szegedy
et al. 2015)."""


class Dri(PoolingClassifier):
    """Inception modules made of residual modules; shallow, medium and deep features are classified together.

    Sourced (abstract): a hybrid of ResNet and Inception that replaces the plain convolutions of Inception by residual
    modules and fuses the features of shallow, medium and deep layers; the auxiliary heads take part in the prediction,
    while Inception's only regularise.

    Our reading, because the layer table is not public:
    * the stem of `resnet`, then three stages at strides 4, 8 and 16, each a 3x3 convolution of stride 2 and two
      modules (`InceptionModule`), with 256, 512 and 1024 channels;
    * the head reads the concatenated global averages of the three stages. That is the sum of one linear head at each
      depth, so each of them takes part in the prediction;
    * in training, there are side heads on the shallow and the medium average with the weight `loss.side_weight`.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, modules: int = MODULES):
        """The size above at `width=1` and with `modules` modules in each stage."""
        super().__init__(settings)
        channels = scale_channels(STEM_CHANNELS, settings.width)
        self.stem = ConvNorm(settings.in_channels, channels, 5, stride=2, dtype=self.dtype, rngs=rngs)
        self.stages: nnx.List[nnx.List[ConvNorm | InceptionModule]] = nnx.List()
        outputs: list[int] = []
        for published in STAGES:
            entry = scale_channels(published / 2, settings.width)
            first = ConvNorm(channels, entry, stride=2, dtype=self.dtype, rngs=rngs)
            layers: list[ConvNorm | InceptionModule] = [first]
            channels = entry
            for _ in range(modules):
                module = InceptionModule(channels, published, settings, rngs=rngs)
                layers.append(module)
                channels = module.channels
            self.stages.append(nnx.List(layers))
            outputs.append(channels)
        counts = [self.count_averages([count]) for count in outputs]
        self.make_heads(settings, sum(counts), counts[:-1], rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        x = self.stem(image, train=train)
        averages: list[Array] = []
        for stage in self.stages:
            for layer in stage:
                x = layer(x, train=train)
            averages.append(self.average([x], image))
        return Description(jnp.concatenate(averages, axis=-1), tuple(averages[:-1]))


class InceptionModule(nnx.Module):
    """Four parallel branches, concatenated: 1x1, residual 3x3, residual 5x5, and pooled.

    The pool is the average of 3x3 pixels, because GoogLeNet's maximum with stride 1 has a slow gradient on CPU.

    Attributes:
        channels: number of channels of the result.
    """

    def __init__(self, in_channels: int, out_channels: int, settings: Settings, *, rngs: nnx.Rngs):
        """`out_channels` is the number at `width=1`."""
        width, dtype = settings.width, settings.dtype
        one, three, five, pooled = (scale_channels(out_channels * share, width) for share in SHARES)
        self.one = ConvNorm(in_channels, one, 1, dtype=dtype, rngs=rngs)
        self.three = residual_branch(in_channels, three, 3, dtype=dtype, rngs=rngs)
        self.five = residual_branch(in_channels, five, 5, dtype=dtype, rngs=rngs)
        self.pooled = ConvNorm(in_channels, pooled, 1, dtype=dtype, rngs=rngs)
        self.channels = one + three + five + pooled

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w k"]:
        """Same height and width."""
        # By their names, because jax2onnx knows only those.
        average = cast(
            Array, nnx.avg_pool(x, window_shape=(3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)
        )
        branches = (self.one(x, train=train), self.three(x, train=train), self.five(x, train=train))
        return jnp.concatenate([*branches, self.pooled(average, train=train)], axis=-1)


def residual_branch(
    in_channels: int, out_channels: int, kernel_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> ResidualModule:
    """A 1x1 convolution to half of the output channels, then a square one, added to a projection of the input."""
    profile = (scale_channels(out_channels / 2, 1.0), 1), (out_channels, kernel_size)
    return ResidualModule(in_channels, profile, stride=1, dtype=dtype, rngs=rngs)
