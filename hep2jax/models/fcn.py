"""VGG-16 fully convolutional network for HEp-2 specimens (Li, Shen, Zhou, Yu, ICPR 2016)."""

from typing import ClassVar

from flax import nnx
from jaxtyping import Array

from hep2jax.models.layers import ConvNorm, ConvStage, Head, dropout, scale_channels
from hep2jax.models.network import Settings
from hep2jax.models.segmenter import Segmenter, SegmenterOutput
from hep2jax.ops import upsample

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(channels, convolutions) of each stage: Simonyan and Zisserman 2015, configuration D, 13 convolutions."""
TOP_CHANNELS = 1024


class Fcn(Segmenter):
    """FCN-8s on a VGG-16 trunk.

    Sourced: "HEp-2 specimen classification with fully convolutional network" (ICPR 2016) adapts VGG-16 and labels
    pixels; VGG-16's 13 convolutions; FCN-8s adds the scores of pool3, pool4 and conv7 (Long et al. 2015).

    Our reading, because the paper's layer table is not public:
    * skips are at strides 8 and 16 (FCN-8s), the finest of the classic variants;
    * conv6 is 3x3 and conv7 1x1, with 1024 channels. The classic 7x7 convolution to 4096 channels has 103 of the
      134 million parameters of such a network; they exist to take over ImageNet's fully connected layers, which are not
      used here, and on a 128-pixel crop its input is only 4x4;
    * BatchNorm follows every convolution. VGG has none and was trained in steps from shallower networks; from scratch
      it does not train reliably without BatchNorm;
    * up-sampling is fixed and bilinear (Long et al. learn the 2x up-samplings, starting from bilinear).
    """

    stride: ClassVar[int] = 32

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The published size at `width=1`."""
        super().__init__(settings)
        width, dtype = settings.width, settings.dtype
        self.stages: nnx.List[ConvStage] = nnx.List()
        channels = settings.in_channels
        for stage_channels, depth in VGG16_STAGES:
            convs: list[ConvNorm] = []
            for _ in range(depth):
                out = scale_channels(stage_channels, width)
                convs.append(ConvNorm(channels, out, dtype=dtype, rngs=rngs))
                channels = out
            self.stages.append(ConvStage(convs))
        top = scale_channels(TOP_CHANNELS, width)
        self.conv6 = ConvNorm(channels, top, dtype=dtype, rngs=rngs)
        self.conv7 = ConvNorm(top, top, 1, dtype=dtype, rngs=rngs)
        skips = [scale_channels(VGG16_STAGES[index][0], width) for index in (2, 3)]
        self.heads = nnx.List([Head(c, settings.num_outputs, dtype=dtype, rngs=rngs) for c in (*skips, top)])

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """Scores at strides 32, 16 and 8 are added from coarse to fine, then up-sampled to full size."""
        features: list[Array] = []
        x = image
        for stage in self.stages:
            x = stage(x, train=train)
            features.append(x)
        x = dropout(self.conv6(x, train=train), self.dropout, train=train, rngs=rngs)
        x = dropout(self.conv7(x, train=train), self.dropout, train=train, rngs=rngs)
        return SegmenterOutput(fuse_scores(self.heads, (features[2], features[3], x)))


def fuse_scores(heads: nnx.List[Head], features: tuple[Array, Array, Array]) -> Array:
    """FCN-8s: logits of strides 8, 16 and 32, added from coarse to fine (x2 each), then up-sampled x8 to full size."""
    fine, middle, coarse = (head(x) for head, x in zip(heads, features, strict=True))
    return upsample(fine + upsample(middle + upsample(coarse, 2), 2), 8)
