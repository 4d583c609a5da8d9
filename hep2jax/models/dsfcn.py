"""DSFCN: dense deconvolution layers and hierarchical supervision (Xie, Lei, He, Lei 2019)."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from hep2jax.models.layers import BatchNorm, ConvNorm, DenseUp, Head, dropout, scale_channels
from hep2jax.models.network import Settings
from hep2jax.models.residual import resnet_trunk
from hep2jax.models.segmenter import Segmenter, SegmenterOutput

DEPTH = 50
"""Layers of the trunk."""
DECODER_CHANNELS = 256


class Dsfcn(Segmenter):
    """ResNet-50, a decoder of dense deconvolution layers, and side heads on the shallow stages.

    Sourced (Neurocomputing 351:77-86, abstract): a very deep network with dense deconvolution layers (DDL), which
    up-sample to the resolution of the image in place of the traditional deconvolution, and with hierarchical
    supervision (HS) of the shallow layers; trained end to end.

    Our reading, because backbone, wiring and weights are not public:
    * the backbone is ResNet-50; with `settings.depth` 34 it is ResNet-34, whose maps have a quarter of the channels, so
      that a step reads and writes 41 GB in place of 77 and takes 76 ms in place of 143 (the TPU compiler's estimate for
      128 images on a v5e);
    * a DDL is a 3x3 convolution to r*r times the channels, then depth to space (dense up-sampling, Shi et al. 2016);
    * there are three DDLs of factor 2 with 256 channels; the 1x1 projection of the trunk's map of the same size is
      added to each, and the sum is normalised and rectified. The last DDL gives the logits in one step of factor 4, so
      that no map with many channels is computed at full size;
    * HS is 1x1 heads on the trunk's maps at strides 4, 8 and 16, in training only. Each score stands for the pixels
      that it covers: the loss compares it with the shares of their labels (`losses`), so that nothing is up-sampled.
      The weight of the heads is `loss.side_weight`.
    """

    stride: ClassVar[int] = 32

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, depths: tuple[int, ...] = ()):
        """The size above at `width=1`.

        The trunk has `settings.depth` layers, 18, 34 or 50 (0 means 50), or `depths` modules in its stages.
        """
        super().__init__(settings)
        width, dtype = settings.width, settings.dtype
        self.trunk = resnet_trunk(settings, settings.depth or DEPTH, modules=depths, rngs=rngs)
        *shallow, deepest = self.trunk.channels
        channels = scale_channels(DECODER_CHANNELS, width)
        self.top = ConvNorm(deepest, channels, 1, dtype=dtype, rngs=rngs)
        self.steps = nnx.List([DecoderStep(channels, c, dtype=dtype, rngs=rngs) for c in reversed(shallow)])
        self.head = DenseUp(
            channels, settings.num_outputs, factor=4, kernel_size=3, use_bias=True, dtype=dtype, rngs=rngs
        )
        self.head_sides = nnx.List([Head(c, settings.num_outputs, dtype=dtype, rngs=rngs) for c in shallow])

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """The side logits are those of the strides 4, 8 and 16, in this order."""
        *shallow, deepest = self.trunk(image, train=train)
        x = self.top(deepest, train=train)
        for step, feature in zip(self.steps, reversed(shallow), strict=True):
            x = step(x, feature, train=train)
        x = dropout(x, self.dropout, train=train, rngs=rngs)
        # The loss takes the scores of a block of pixels as they are, without the rearrangement to an image.
        logits = self.head(x, in_blocks=train and self.pixel_block == 1).astype(jnp.float32)
        return SegmenterOutput(logits, self._side_logits(shallow) if train else ())

    def _side_logits(self, features: list[Array]) -> tuple[Array, ...]:
        return tuple(head(feature) for head, feature in zip(self.head_sides, features, strict=True))


class DecoderStep(nnx.Module):
    """A dense deconvolution layer of factor 2 plus the projected map of the trunk, normalised and rectified."""

    def __init__(self, channels: int, skip_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """`channels` in and out, `skip_channels` of the trunk's map."""
        self.dense = DenseUp(channels, channels, factor=2, kernel_size=3, dtype=dtype, rngs=rngs)
        self.lateral = nnx.Conv(skip_channels, channels, (1, 1), use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(channels)

    def __call__(self, x: Array, skip: Array, *, train: bool) -> Array:
        """The result has the height and width of `skip`, which are twice those of `x`."""
        return nnx.relu(self.norm(self.dense(x) + self.lateral(skip), train=train))
