"""VGG-like cell network (Jia, Shen, Zhou, Yu, ICPR 2016, pp. 77-80)."""

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.classifier import Description, PoolingClassifier
from hep2jax.models.layers import ConvNorm, scale_channels
from hep2jax.models.network import Settings

STAGES = (32, 64, 128, 256)
HIDDEN = 512


class VggCell(PoolingClassifier):
    """Four stages of two 3x3 convolutions and a 2x2 max pool, global average, one hidden layer, one linear layer.

    Sourced: a VGG-like deep CNN for cells. Our reading, because its layers are not public:
    * pairs of 3x3 convolutions with 32, 64, 128 and 256 channels, with BatchNorm after each, because VGG does not train
      reliably from scratch without it;
    * a global average instead of flattening: the pattern of a cell does not depend on its position in the crop, and a
      flattened 5x5x256 map would put four fifths of all parameters into one layer;
    * a fully connected layer of 512 units with ReLU before the last one.
    """

    divisible = True

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The channels above at `width=1`."""
        super().__init__(settings)
        self.stages: nnx.List[nnx.List[ConvNorm]] = nnx.List()
        channels = settings.in_channels
        for out in (scale_channels(count, settings.width) for count in STAGES):
            first = ConvNorm(channels, out, dtype=self.dtype, rngs=rngs)
            self.stages.append(nnx.List([first, ConvNorm(out, out, dtype=self.dtype, rngs=rngs)]))
            channels = out
        hidden, widths = scale_channels(HIDDEN, settings.width), [scale_channels(n, settings.width) for n in STAGES]
        self.hidden = nnx.Linear(
            self.count_averages(widths), hidden, dtype=self.dtype, kernel_init=nnx.initializers.he_normal(), rngs=rngs
        )
        self.make_heads(settings, hidden, rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        x, maps = image, list[Array]()
        for stage in self.stages:
            for number, conv in enumerate(stage, 1):
                x = conv(x, train=train, pool=number == len(stage))
            maps.append(x)
        return Description(nnx.relu(self.hidden(self.average(maps, image))))
