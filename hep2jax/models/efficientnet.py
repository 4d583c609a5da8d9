"""EfficientNet-Lite for cells: EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6.

Architecture: tensorflow/tpu, models/official/efficientnet/lite (2020), Apache-2.0. With `model.init_from=imagenet` a
network starts from the weights that were published there (see `hep2jax.models.pretrained`).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax import ops
from hep2jax.models.classifier import Description, PoolingClassifier
from hep2jax.models.layers import BatchNorm, scale_channels
from hep2jax.models.network import Settings

_EPSILON = 1e-3
_STEM, HEAD = 32, 1280
_STAGES = ((3, 1, 1, 16), (3, 2, 6, 24), (5, 2, 6, 40), (3, 2, 6, 80), (5, 1, 6, 112), (5, 2, 6, 192), (3, 1, 6, 320))
"""Side of the kernel, stride of the first block, expansion and channels of each stage."""
GREY_MEAN, GREY_DEVIATION = 127 / 255, 128 / 255
"""Of the grey levels (0 to 1) in the published training. Other ImageNet networks have other ones."""

_published_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class LiteTrunk(nnx.Module):
    """Stem, inverted residual blocks and the last 1x1 convolution, with SAME padding as in TensorFlow.

    Modules have the names of the package efficientnet-lite-pytorch (Apache-2.0), without its leading underscores.

    Attributes:
        channels: of each stage's map.
    """

    def __init__(
        self,
        repeats: Sequence[int],
        *,
        width: float = 1.0,
        wider: float = 1.0,
        dtype: jnp.dtype | None = None,
        init: nnx.Initializer = _published_init,
        rngs: nnx.Rngs,
    ):
        """`repeats` are the blocks of each stage; `wider` widens the stages alone, `width` stem and head as well.

        A `dtype` of None computes in that of the image.
        """
        make: dict[str, Any] = {"dtype": dtype, "init": init, "rngs": rngs}
        self.repeats = tuple(repeats)
        self.channels = tuple(scale_channels(channels * wider, width) for *_, channels in _STAGES)
        channels, head = scale_channels(_STEM, width), scale_channels(HEAD, width)
        self.conv_stem, self.bn0 = _convolution(3, channels, 3, stride=2, **make), _norm(channels)
        self.blocks: nnx.List[_InvertedResidual] = nnx.List()
        for count, (kernel, stride, expansion, _), out in zip(repeats, _STAGES, self.channels, strict=True):
            for position in range(count):
                step = 1 if position else stride
                self.blocks.append(_InvertedResidual(channels, out, kernel, step, expansion, **make))
                channels = out
        self.conv_head, self.bn1 = _convolution(channels, head, 1, **make), _norm(head)

    def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> list[Float[Array, "b _ _ _"]]:
        """The map of each stage, of strides 2, 4, 8, 16, 16, 32 and 32, and that of the last convolution."""
        x = nnx.relu6(self.bn0(self.conv_stem(image), train=train))
        maps, blocks = list[Array](), iter(self.blocks)
        for count in self.repeats:
            for _ in range(count):
                x = next(blocks)(x, train=train)
            maps.append(x)
        return [*maps, nnx.relu6(self.bn1(self.conv_head(x), train=train))]


class _InvertedResidual(nnx.Module):
    """1x1 expansion (unless it is 1), depthwise convolution, linear 1x1 projection; a skip if the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, **make: Any):
        wide = in_channels * expansion
        self.expand_conv = _convolution(in_channels, wide, 1, **make) if expansion > 1 else None
        self.bn0 = _norm(wide) if expansion > 1 else None
        self.depthwise_conv = _convolution(wide, wide, kernel, stride=stride, depthwise=True, **make)
        self.bn1 = _norm(wide)
        self.project_conv, self.bn2 = _convolution(wide, out_channels, 1, **make), _norm(out_channels)
        self.skips = stride == 1 and in_channels == out_channels

    def __call__(self, x: Array, *, train: bool) -> Array:
        y = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = nnx.relu6(self.bn0(self.expand_conv(y), train=train))
        y = nnx.relu6(self.bn1(self.depthwise_conv(y), train=train))
        y = self.bn2(self.project_conv(y), train=train)
        return x + y if self.skips else y


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, epsilon=_EPSILON)


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    depthwise: bool = False,
    dtype: jnp.dtype | None,
    init: nnx.Initializer,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    arithmetic: dict[str, Any] = {"conv_general_dilated": ops.depthwise_conv2d} if depthwise else {}
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        stride,
        feature_group_count=in_channels if depthwise else 1,
        use_bias=False,
        kernel_init=init,
        dtype=dtype,
        rngs=rngs,
        **arithmetic,
    )


class EfficientNetLite0(PoolingClassifier):
    """EfficientNet-Lite0, the smallest, with a head for the patterns of cells.

    Our reading for cells: inputs of 128 pixels, to which cells are enlarged, instead of 224 and more, so that a step
    takes a third of the time. A grey image is repeated in the three channels of the published training and normalised
    as there; frames (`data.cell_fit=frame`) take the three channels as they are. With `regions` averages are those of
    the fifth stage's map and of the last one. Stochastic depth, with which the weights were trained, is left out.

    Attributes:
        repeats: blocks of each stage.
        wider: multiplier of the stages' channels.
    """

    side = 128
    stride = 32
    repeats: ClassVar[tuple[int, ...]] = (1, 2, 2, 3, 3, 4, 1)
    wider: ClassVar[float] = 1.0

    def __init__(self, settings: Settings, *, repeats: Sequence[int] = (), rngs: nnx.Rngs):
        """The published size at `width=1`; other `repeats` make it shallower."""
        super().__init__(settings)
        self.trunk = LiteTrunk(
            repeats or self.repeats, width=settings.width, wider=self.wider, dtype=settings.dtype, rngs=rngs
        )
        head = scale_channels(HEAD, settings.width)
        self.make_heads(settings, self.count_averages((self.trunk.channels[4], head)), rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        coloured = image
        if self.in_channels == 1:
            coloured = jnp.broadcast_to((image - GREY_MEAN) / GREY_DEVIATION, (*image.shape[:3], 3))
        *_, fine, _, _, last = self.trunk(coloured, train=train)
        return Description(self.average((fine, last), image))


class EfficientNetLite1(EfficientNetLite0):
    """EfficientNet-Lite1: as Lite0, deeper."""

    repeats = (1, 3, 3, 4, 4, 5, 1)


class EfficientNetLite2(EfficientNetLite1):
    """EfficientNet-Lite2: as Lite1, wider."""

    wider = 1.1
