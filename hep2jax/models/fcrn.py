"""FCRN-88, the fully convolutional residual network for HEp-2 specimens (Li, Shen, Yu 2017)."""

from typing import ClassVar

from flax import nnx
from jaxtyping import Array

from hep2jax.models.fcn import fuse_scores
from hep2jax.models.layers import Head, dropout
from hep2jax.models.network import Settings
from hep2jax.models.residual import ResidualTrunk, sand_clock
from hep2jax.models.segmenter import Segmenter, SegmenterOutput

DEPTHS = (3, 4, 11, 3)
"""Residual modules of each stage."""


class Fcrn(Segmenter):
    """A residual trunk of sand-clock modules, made fully convolutional.

    Sourced (IEEE TMI 36(7):1561-1572, abstract, and lists of abbreviations that name FCRN-88): ResNet turned into a
    fully convolutional network, sand-clock shape residual modules, 88 layers.

    Our reading, because the layer table is not public:
    * the wiring of the module (`residual.sand_clock`);
    * 88 = 1 stem + 4 layers in each of 3 + 4 + 11 + 3 modules + 3 score layers, counted as for ResNet: layers with
      weights, without the projections of shortcuts. 3, 4 and 3 are the depths of every large ResNet's conv2_x, conv3_x
      and conv5_x; conv4_x has the remaining modules;
    * channels of the stages as in ResNet-50, and the skips of the same group's FCN (strides 8, 16, 32, FCN-8s).
    """

    stride: ClassVar[int] = 32

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, depths: tuple[int, ...] = DEPTHS):
        """The published size at `width=1` and with these depths."""
        super().__init__(settings)
        self.trunk = ResidualTrunk(settings, depths, sand_clock, rngs=rngs)
        heads = [Head(c, settings.num_outputs, dtype=self.dtype, rngs=rngs) for c in self.trunk.channels[1:]]
        self.heads = nnx.List(heads)

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """Scores at strides 32, 16 and 8 are added from coarse to fine, then up-sampled to full size."""
        _, fine, middle, coarse = self.trunk(image, train=train)
        coarse = dropout(coarse, self.dropout, train=train, rngs=rngs)
        return SegmenterOutput(fuse_scores(self.heads, (fine, middle, coarse)))
