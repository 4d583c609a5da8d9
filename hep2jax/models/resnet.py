"""Residual networks for cells: ResNet (He et al. 2016) and the deeply supervised DSRN (Lei et al. 2018)."""

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.classifier import Description, PoolingClassifier
from hep2jax.models.layers import global_average
from hep2jax.models.network import Settings
from hep2jax.models.residual import ResidualTrunk, resnet_trunk

PUBLISHED_DEPTH = 50


class ResNet(PoolingClassifier):
    """ResNet-50 (or -34, -18), global average pooling, one linear layer.

    Our reading for cells of about 80 pixels: the stem is one 5x5 convolution of stride 2 without a pool, so that
    conv2_x works at 40x40 and conv5_x at 5x5. The published stem is designed for 224 pixels and would give 20x20 and
    3x3.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The published size at `width=1`; `settings.depth` is 18, 34 or 50, and 0 means 50."""
        super().__init__(settings)
        self.trunk = cell_trunk(settings, rngs=rngs)
        self.make_heads(settings, self.count_averages(self.trunk.channels), rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        return Description(self.average(self.trunk(image, train=train), image))


class Dsrn(PoolingClassifier):
    """Deeply supervised residual network (Lei et al., Pattern Recognition 79:290-302, 2018; Xie et al., ICPR 2018).

    Sourced: ResNet-50 with deep supervision that directly guides the training of the lower and upper levels.

    Our reading, because positions and weights of the side heads are not public: a global average and a linear layer
    after conv3_x and after conv4_x, in training only, with the weight `loss.side_weight`; the stem is that of `ResNet`.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """As in `ResNet`."""
        super().__init__(settings)
        self.trunk = cell_trunk(settings, rngs=rngs)
        _, *sides, _ = channels = self.trunk.channels
        self.make_heads(settings, self.count_averages(channels), sides, rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        _, *sides, _ = maps = self.trunk(image, train=train)
        return Description(self.average(maps, image), tuple(map(global_average, sides)))


def cell_trunk(settings: Settings, *, rngs: nnx.Rngs) -> ResidualTrunk:
    """The residual trunk of the configured depth with the stem for cells; UsageError as for `resnet_trunk`."""
    return resnet_trunk(settings, settings.depth or PUBLISHED_DEPTH, fine=True, rngs=rngs)
