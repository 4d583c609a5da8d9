"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6.

Architecture and weights: tensorflow/tpu, models/official/efficientnet/lite (2020), Apache-2.0; the weights' conversion
to PyTorch and the names of the modules: package efficientnet-lite-pytorch, Apache-2.0.
"""

import functools

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax import ops
from hep2jax.models.layers import BatchNorm, global_average
from hep2jax.models.pretrained.network import NUM_CLASSES, ImageNetNetwork, Path, convolution, linear

_EPSILON = 1e-3
_STEM, _HEAD = 32, 1280
_FINE_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
_STAGES = (*_FINE_STAGES, (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
"""Blocks, side of the kernel, stride of the first block, expansion, channels."""


_same = functools.partial(convolution, padding="SAME")  # the weights were trained in TensorFlow


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, epsilon=_EPSILON)


class _InvertedResidual(nnx.Module):
    """1x1 expansion (unless it is 1), depthwise convolution, linear 1x1 projection; a skip if the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, rngs: nnx.Rngs):
        wide = in_channels * expansion
        self.expand_conv = _same(in_channels, wide, 1, rngs=rngs) if expansion > 1 else None
        self.bn0 = _norm(wide) if expansion > 1 else None
        self.depthwise_conv = _same(
            wide, wide, kernel, stride=stride, groups=wide, arithmetic=ops.depthwise_conv2d, rngs=rngs
        )
        self.bn1 = _norm(wide)
        self.project_conv = _same(wide, out_channels, 1, rngs=rngs)
        self.bn2 = _norm(out_channels)
        self.skips = stride == 1 and in_channels == out_channels

    def __call__(self, x: Array) -> Array:
        y = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = nnx.relu6(self.bn0(self.expand_conv(y), train=False))
        y = nnx.relu6(self.bn1(self.depthwise_conv(y), train=False))
        y = self.bn2(self.project_conv(y), train=False)
        return x + y if self.skips else y


class EfficientNetLite0(ImageNetNetwork):
    """The default of the pre-trained networks: 4.7 million parameters, and weights that can be installed."""

    multiple = 32
    # The Lite family was trained with (grey - 127) / 128, unlike the other networks here.
    mean = (127 / 255, 127 / 255, 127 / 255)
    deviation = (128 / 255, 128 / 255, 128 / 255)
    layers = ("stage3", "stage5", "stage7", "head", "logits")

    def __init__(self, *, rngs: nnx.Rngs):
        """Modules have the names of the PyTorch package without the leading underscores."""
        self.conv_stem, self.bn0 = _same(3, _STEM, 3, stride=2, rngs=rngs), _norm(_STEM)
        self.blocks: nnx.List[_InvertedResidual] = nnx.List()
        channels = _STEM
        for count, kernel, stride, expansion, out in _STAGES:
            for position in range(count):
                step = 1 if position else stride
                self.blocks.append(_InvertedResidual(channels, out, kernel, step, expansion, rngs))
                channels = out
        self.conv_head, self.bn1 = _same(channels, _HEAD, 1, rngs=rngs), _norm(_HEAD)
        self.fc = linear(_HEAD, NUM_CLASSES, rngs=rngs)

    @override
    def describe(self, image: Array) -> dict[str, Array]:
        described: dict[str, Array] = {}
        x = nnx.relu6(self.bn0(self.conv_stem(image), train=False))
        blocks = iter(self.blocks)
        for stage, (count, *_) in enumerate(_STAGES, 1):
            for _ in range(count):
                x = next(blocks)(x)
            described[f"stage{stage}"] = global_average(x)
        head = global_average(nnx.relu6(self.bn1(self.conv_head(x), train=False)))
        described |= {"head": head, "logits": self.fc(head)}
        return {name: described[name] for name in self.layers}

    @override
    @classmethod
    def torch_module(cls, module: Path) -> str:
        return ".".join(str(part) if isinstance(part, int) else f"_{part}" for part in module)
