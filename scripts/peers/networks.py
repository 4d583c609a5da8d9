"""`gao`, `resnet`, `fcn`, `dsfcn` and `unet` in PyTorch: the same layers in the same order, from the same layer tables.

Modules have the same names as ours, so that parameters can be copied by name. Images are in NCHW order.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from hep2jax.config import ModelConfig
from hep2jax.models import dsfcn, fcn, gao, residual, resnet, unet
from hep2jax.models.layers import scale_channels
from hep2jax.training import state as states

Output = tuple[Tensor, tuple[Tensor, ...]]
"""Logits [B, K] or [B, K, H, W], and the logits of the side heads in training."""


def build(config: ModelConfig, num_outputs: int) -> nn.Module:
    """Build the PyTorch twin of the network that `hep2jax.models.build` builds for grey images."""
    return TWINS[config.name](config, num_outputs)


class PooledConv(nn.Module):
    """VALID convolution, max pooling, scaled tanh; as in our network, the tanh comes after the pooling."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, pool: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Maps with (side - kernel size + 1) / pool pixels per side."""
        return scaled_tanh(functional.max_pool2d(functional.conv2d(x, self.conv.weight, self.bias), self.pool))


def scaled_tanh(x: Tensor) -> Tensor:
    """1.7159 tanh(2x/3)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class Gao(nn.Module):
    """`hep2jax.models.gao.Gao`."""

    def __init__(self, config: ModelConfig, num_outputs: int):
        super().__init__()
        layers, channels, side = [], 1, gao.Gao.side
        for published, kernel_size, pool in gao.LAYERS:
            out = _gao_channels(published, config.width)
            layers.append(PooledConv(channels, out, kernel_size, pool))
            channels, side = out, (side - kernel_size + 1) // pool
        self.layers = nn.ModuleList(layers)
        hidden = _gao_channels(gao.HIDDEN, config.width)
        self.hidden = nn.Linear(channels * side**2, hidden)
        self.head = Head(hidden, num_outputs)

    def forward(self, x: Tensor) -> Output:
        """Logits of cells [B, 1, 78, 78]."""
        for layer in self.layers:
            x = layer(x)
        x = x.movedim(1, 3).flatten(1)  # NHWC order, as in our network, so that the weights of the next layer match
        return self.head(scaled_tanh(self.hidden(x))), ()


def _gao_channels(channels: int, width: float) -> int:
    return channels if width == 1.0 else scale_channels(channels, width)


class Head(nn.Module):
    """Linear layer on the channels of vectors or pixels."""

    def __init__(self, in_channels: int, num_outputs: int, *, pixels: bool = False):
        super().__init__()
        self.linear = nn.Conv2d(in_channels, num_outputs, 1) if pixels else nn.Linear(in_channels, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits."""
        return at_least_float32(self.linear(x))


def at_least_float32(x: Tensor) -> Tensor:
    """Convert bfloat16 to float32; float64, used by a reference, is unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SameConv(nn.Conv2d):
    """SAME convolution, padded like XLA: with stride 2 and even sides, there is one pixel less padding in front."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, bias: bool = False):
        total = max(kernel_size - stride, 0)
        low, high = total // 2, total - total // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, low if low == high else 0, bias=bias)
        self.borders = () if low == high else (low, high, low, high)

    def forward(self, x: Tensor) -> Tensor:
        """Maps with sides divided by the stride."""
        return super().forward(functional.pad(x, self.borders) if self.borders else x)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless switched off, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv = SameConv(in_channels, out_channels, kernel_size, stride)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps with sides divided by the stride."""
        x = self.norm(self.conv(x))
        return functional.relu(x, inplace=True) if self.relu else x


class ResidualModule(nn.Module):
    """`hep2jax.models.residual.ResidualModule`."""

    def __init__(self, in_channels: int, profile: residual.Profile, *, stride: int):
        super().__init__()
        channels, out_channels, pending = in_channels, profile[-1][0], stride
        branch = []
        for index, (out, kernel) in enumerate(profile):
            step = pending if kernel > 1 else 1
            branch.append(ConvNorm(channels, out, kernel, stride=step, relu=index < len(profile) - 1))
            channels, pending = out, pending // step
        self.branch = nn.ModuleList(branch)
        changes = stride != 1 or in_channels != out_channels
        self.projection = ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps with sides divided by the stride."""
        shortcut = x if self.projection is None else self.projection(x)
        for conv in self.branch:
            x = conv(x)
        return functional.relu(x + shortcut, inplace=True)


class ResidualTrunk(nn.Module):
    """`hep2jax.models.residual.ResidualTrunk`."""

    def __init__(
        self,
        width: float,
        depths: Sequence[int],
        profile: Callable[[int], residual.Profile],
        stage_channels: Sequence[int],
        *,
        fine: bool = False,
    ):
        super().__init__()
        channels = scale_channels(residual.STEM_CHANNELS, width)
        self.stem = ConvNorm(1, channels, 5 if fine else 7, stride=2)
        self.pooled = not fine
        stages, self.channels = [], []
        for index, (depth, published) in enumerate(zip(depths, stage_channels, strict=True)):
            scaled = tuple((scale_channels(count, width), kernel) for count, kernel in profile(published))
            modules = []
            for position in range(depth):
                modules.append(ResidualModule(channels, scaled, stride=2 if index and not position else 1))
                channels = scaled[-1][0]
            stages.append(nn.Sequential(*modules))
            self.channels.append(channels)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of the four stages, fine to coarse."""
        x, features = self.stem(x), []
        x = functional.max_pool2d(x, 2) if self.pooled else x
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ResNet(nn.Module):
    """`hep2jax.models.resnet.ResNet`."""

    def __init__(self, config: ModelConfig, num_outputs: int):
        super().__init__()
        depths, profile, channels = residual.VARIANTS[config.depth or resnet.PUBLISHED_DEPTH]
        self.trunk = ResidualTrunk(config.width, depths, profile, channels, fine=True)
        self.head = Head(self.trunk.channels[-1], num_outputs)

    def forward(self, x: Tensor) -> Output:
        """Logits of cells [B, 1, H, W]."""
        return self.head(self.trunk(x)[-1].mean((2, 3))), ()


class Fcn(nn.Module):
    """`hep2jax.models.fcn.Fcn`."""

    def __init__(self, config: ModelConfig, num_outputs: int):
        super().__init__()
        stages, channels = [], 1
        for stage_channels, depth in fcn.VGG16_STAGES:
            out = scale_channels(stage_channels, config.width)
            stages.append(nn.Sequential(*(ConvNorm(out if i else channels, out) for i in range(depth))))
            channels = out
        self.stages = nn.ModuleList(stages)
        top = scale_channels(fcn.TOP_CHANNELS, config.width)
        self.conv6, self.conv7 = ConvNorm(channels, top), ConvNorm(top, top, 1)
        skips = [scale_channels(fcn.VGG16_STAGES[index][0], config.width) for index in (2, 3)]
        self.heads = nn.ModuleList([Head(c, num_outputs, pixels=True) for c in (*skips, top)])

    def forward(self, x: Tensor) -> Output:
        """Logits of pixels [B, 1, H, W]."""
        features = []
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2)
            features.append(x)
        maps = (features[2], features[3], self.conv7(self.conv6(x)))
        fine, middle, coarse = (head(x) for head, x in zip(self.heads, maps, strict=True))
        return upsample(fine + upsample(middle + upsample(coarse, 2), 2), 8), ()


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling with half-pixel centres."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class DenseUp(nn.Module):
    """Convolution to `factor**2` times the channels, then depth to space."""

    def __init__(self, in_channels: int, out_channels: int, *, factor: int, kernel_size: int = 3, bias: bool = False):
        super().__init__()
        self.conv = SameConv(in_channels, out_channels * factor**2, kernel_size, bias=bias)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Maps with sides multiplied by `factor`."""
        return functional.pixel_shuffle(self.conv(x), self.factor)


class DecoderStep(nn.Module):
    """`hep2jax.models.dsfcn.DecoderStep`."""

    def __init__(self, channels: int, skip_channels: int):
        super().__init__()
        self.dense = DenseUp(channels, channels, factor=2)
        self.lateral = SameConv(skip_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Maps with twice the sides of `x`, which are those of `skip`."""
        return functional.relu(self.norm(self.dense(x) + self.lateral(skip)), inplace=True)


class Dsfcn(nn.Module):
    """`hep2jax.models.dsfcn.Dsfcn`."""

    def __init__(self, config: ModelConfig, num_outputs: int):
        super().__init__()
        self.trunk = ResidualTrunk(config.width, *residual.VARIANTS[config.depth or dsfcn.DEPTH])
        *shallow, deepest = self.trunk.channels
        channels = scale_channels(dsfcn.DECODER_CHANNELS, config.width)
        self.top = ConvNorm(deepest, channels, 1)
        self.steps = nn.ModuleList([DecoderStep(channels, c) for c in reversed(shallow)])
        self.head = DenseUp(channels, num_outputs, factor=4, bias=True)
        self.head_sides = nn.ModuleList([Head(c, num_outputs, pixels=True) for c in shallow])

    def forward(self, x: Tensor) -> Output:
        """Logits of pixels [B, 1, H, W]."""
        *shallow, deepest = self.trunk(x)
        x = self.top(deepest)
        for step, feature in zip(self.steps, reversed(shallow), strict=True):
            x = step(x, feature)
        sides = zip(self.head_sides, shallow, strict=True) if self.training else ()
        return at_least_float32(self.head(x)), tuple(head(feature) for head, feature in sides)


class DoubleConv(nn.Module):
    """`hep2jax.models.unet.DoubleConv`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first, self.second = ConvNorm(in_channels, out_channels), ConvNorm(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps with the same sides."""
        return self.second(self.first(x))


class UNet(nn.Module):
    """`hep2jax.models.unet.UNet`."""

    def __init__(self, config: ModelConfig, num_outputs: int):
        super().__init__()
        levels = [scale_channels(channels, config.width) for channels in unet.CHANNELS]
        self.down = nn.ModuleList([DoubleConv(a, b) for a, b in zip([1, *levels[:-1]], levels, strict=True)])
        steps = list(zip(levels[:0:-1], levels[-2::-1], strict=True))
        self.lift = nn.ModuleList([DenseUp(a, b, factor=2, kernel_size=1) for a, b in steps])
        self.up = nn.ModuleList([DoubleConv(2 * b, b) for _, b in steps])
        self.head = Head(levels[0], num_outputs, pixels=True)

    def forward(self, x: Tensor) -> Output:
        """Logits of pixels [B, 1, H, W]."""
        skips = []
        for index, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if index else x)
            skips.append(x)
        x = skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(torch.cat([skips.pop(), lift(x)], 1))
        return self.head(x), ()


_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


TWINS: dict[str, Callable[[ModelConfig, int], nn.Module]] = {
    "gao": Gao,
    "resnet": ResNet,
    "fcn": Fcn,
    "dsfcn": Dsfcn,
    "unet": UNet,
}
"""The networks that have a twin, by `model.name`."""


def copy_parameters(model: nn.Module, params: states.Tree, batch_stats: states.Tree) -> None:
    """Copy our parameters and running averages to the twin.

    Raises:
        RuntimeError: names or shapes of the two networks differ.
    """
    converted = renamed(model, params) | renamed(model, batch_stats)
    fresh = model.state_dict()
    counters = {name: value for name, value in fresh.items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(converted | counters)


def renamed(model: nn.Module, tree: states.Tree) -> dict[str, Tensor]:
    """Convert our parameters, gradients or running averages to the names, axis order and shapes of the twin."""
    converted = {
        _name(path): _oriented(path, torch.tensor(np.asarray(leaf)))
        for path, leaf in states.leaves_by_path(tree).items()
    }
    for name, module in model.named_modules():
        if isinstance(module, DenseUp):
            _reorder(converted, f"{name}.conv", module.factor)
    fresh = model.state_dict()
    # In the twin, a linear layer on pixels is a 1x1 convolution.
    return {name: value.view_as(fresh[name]) if name in fresh else value for name, value in converted.items()}


def _name(path: str) -> str:
    *modules, last = path.split("/")
    return ".".join([*modules, _NAMES.get(last, last)])


def _oriented(path: str, value: Tensor) -> Tensor:
    """Move the output axis of a kernel to the front, followed by the input axis."""
    return value.movedim(-1, 0).movedim(-1, 1) if path.endswith("kernel") else value


def _reorder(converted: dict[str, Tensor], name: str, factor: int) -> None:
    """Reorder the output channels of `DenseUp` from (row, column, channel) to the order of `pixel_shuffle`."""
    for kind in ("weight", "bias"):
        value = converted.get(f"{name}.{kind}")
        if value is not None:
            converted[f"{name}.{kind}"] = value.unflatten(0, (factor**2, -1)).movedim(1, 0).flatten(0, 1)
