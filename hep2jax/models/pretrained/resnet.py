# pyright: reportUnknownMemberType=false
"""ResNet-18 and ResNet-50 for 224 pixels (He, Zhang, Ren, Sun 2016) in torchvision's layout.

The networks of `models.residual` are trained from scratch on cells, with SAME padding, a 2x2 pool and other stems.
Published weights need the published arithmetic, so these networks are written separately.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.layers import BatchNorm, global_average
from hep2jax.models.pretrained.network import NUM_CLASSES, ImageNetNetwork, convolution, linear

_WIDTHS = (64, 128, 256, 512)
_POOL_PADDING: Any = ((1, 1), (1, 1))  # as PyTorch pads the pool; Flax's stubs want a string


class _Block(nnx.Module):
    """Convolutions with norms, added to the shortcut; `downsample` is its projection if the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, rngs: nnx.Rngs):
        changes = stride > 1 or in_channels != out_channels
        if changes:
            projection = convolution(in_channels, out_channels, 1, stride=stride, rngs=rngs)
            self.downsample = nnx.List([projection, BatchNorm(out_channels)])
        else:
            self.downsample = None

    def __call__(self, x: Array) -> Array:
        """The rectified sum of branch and shortcut."""
        return nnx.relu(self.branch(x) + _chain(self.downsample or (), x))

    def branch(self, x: Array) -> Array:
        """The convolutions, the last one not rectified."""
        raise NotImplementedError


class _Basic(_Block):
    """Two 3x3 convolutions, the stride in the first."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, *, rngs: nnx.Rngs):
        super().__init__(in_channels, width, stride, rngs=rngs)
        self.conv1, self.bn1 = convolution(in_channels, width, 3, stride=stride, rngs=rngs), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3, rngs=rngs), BatchNorm(width)

    @override
    def branch(self, x: Array) -> Array:
        x = nnx.relu(_chain((self.conv1, self.bn1), x))
        return _chain((self.conv2, self.bn2), x)


class _Bottleneck(_Block):
    """1x1, 3x3, 1x1 convolutions; the stride in the 3x3, as torchvision trained it ("ResNet v1.5")."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, *, rngs: nnx.Rngs):
        out = width * self.expansion
        super().__init__(in_channels, out, stride, rngs=rngs)
        self.conv1, self.bn1 = convolution(in_channels, width, 1, rngs=rngs), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride=stride, rngs=rngs), BatchNorm(width)
        self.conv3, self.bn3 = convolution(width, out, 1, rngs=rngs), BatchNorm(out)

    @override
    def branch(self, x: Array) -> Array:
        x = nnx.relu(_chain((self.conv1, self.bn1), x))
        x = nnx.relu(_chain((self.conv2, self.bn2), x))
        return _chain((self.conv3, self.bn3), x)


def _chain(layers: Iterable[nnx.Conv | BatchNorm | _Block], x: Array) -> Array:
    for layer in layers:
        x = layer(x, train=False) if isinstance(layer, BatchNorm) else layer(x)
    return x


class _ResNet(ImageNetNetwork):
    """7x7 stem, overlapping 3x3 max pool, four stages, global average, one linear layer."""

    multiple = 32
    layers = ("layer1", "layer2", "layer3", "avgpool", "logits")
    block: ClassVar[type[_Basic] | type[_Bottleneck]]
    depths: ClassVar[tuple[int, int, int, int]]

    def __init__(self, *, rngs: nnx.Rngs):
        """Modules have torchvision's names."""
        self.conv1, self.bn1 = convolution(3, 64, 7, stride=2, rngs=rngs), BatchNorm(64)
        channels = 64
        for index, (width, depth) in enumerate(zip(_WIDTHS, self.depths, strict=True)):
            blocks: list[_Block] = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                blocks.append(self.block(channels, width, stride, rngs=rngs))
                channels = width * self.block.expansion
            setattr(self, f"layer{index + 1}", nnx.List(blocks))
        self.fc = linear(channels, NUM_CLASSES, rngs=rngs)

    @override
    def describe(self, image: Array) -> dict[str, Array]:
        described: dict[str, Array] = {}
        x = nnx.relu(_chain((self.conv1, self.bn1), image))
        x = nnx.max_pool(x, (3, 3), (2, 2), padding=_POOL_PADDING)
        for index, name in enumerate(self.layers[:4], 1):
            x = _chain(getattr(self, f"layer{index}"), x)
            described[name] = global_average(x)
        return described | {"logits": self.fc(described["avgpool"])}


class ResNet18(_ResNet):
    """Two basic blocks in each stage."""

    block, depths = _Basic, (2, 2, 2, 2)


class ResNet50(_ResNet):
    """3, 4, 6 and 3 bottleneck blocks."""

    block, depths = _Bottleneck, (3, 4, 6, 3)
