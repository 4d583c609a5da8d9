# pyright: reportUnknownMemberType=false
"""What the published ImageNet networks have in common: input, named layers, and the conversion of their weights."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax import lax
from jaxtyping import Array, Float

from hep2jax.errors import UsageError

NUM_CLASSES = 1000
_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm; evaluation does not need it

Path = tuple[str | int, ...]
Parameters = dict[str, Any]


class ImageNetNetwork(nnx.Module):
    """Base of the networks: NHWC, float32, evaluation only (norms use their published averages, no dropout).

    Attributes:
        side: height and width of the image that the network was published for.
        multiple: other sides must be multiples of this; 0 if only `side` fits, because the last map is flattened.
        mean, deviation: of the grey levels (0 to 1) of each channel in the network's training.
        layers: names of the layers that `describe` gives, from fine to coarse.
        flattened: (channels, height, width) of the flattened map that a linear layer reads, by module path.
    """

    side: ClassVar[int] = 224
    multiple: ClassVar[int] = 0
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    deviation: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    layers: ClassVar[tuple[str, ...]]
    flattened: ClassVar[dict[str, tuple[int, int, int]]] = {}

    def describe(self, image: Float[Array, "batch side side 3"]) -> dict[str, Float[Array, "batch _"]]:
        """Every named layer of a batch of normalised images: see `Pretrained.describe`."""
        raise NotImplementedError

    @classmethod
    def torch_module(cls, module: Path) -> str:
        """The name of a module in the published state dict: that of the attribute, unless a network overrides this."""
        return ".".join(map(str, module))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A published network's structure without its arrays, so that functions under `jax.jit` can close over it."""

    name: str
    graphdef: nnx.GraphDef[ImageNetNetwork]
    kind: type[ImageNetNetwork]
    shapes: dict[Path, tuple[int, ...]]
    """Shape of every array, by its path."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be read, from fine to coarse; the last is `logits`, of the 1,000 classes."""
        return self.kind.layers

    @property
    def side(self) -> int:
        """Height and width of the image that the network was published for."""
        return self.kind.side

    def prepare(
        self, grey: Float[Array, "batch height width"], side: int | None = None
    ) -> Float[Array, "batch side side 3"]:
        """Grey images of cells (0 background to 1 bright, clipped) in the form of the network's input.

        They are resized to its side (linearly, with anti-aliasing if they shrink), the grey levels are repeated in
        three channels, and these are normalised by the mean and the standard deviation of the network's training.

        Raises:
            UsageError: the network does not take this side.
        """
        side = side or self.side
        self.check_side(side)
        resized = cast(Array, jax.image.resize(jnp.clip(grey, 0, 1), (len(grey), side, side), "linear"))
        mean, deviation = (np.array(row, np.float32) for row in (self.kind.mean, self.kind.deviation))
        return (resized[..., None] - mean) / deviation

    def describe(
        self, params: Parameters, image: Float[Array, "batch side side 3"]
    ) -> dict[str, Float[Array, "batch _"]]:
        """Every layer of `layers`, float32 [batch, width of the layer].

        Convolutional layers give the average of their (rectified and pooled) map over the pixels, fully connected
        layers their rectified output. The average is our reading: what the HEp-2 papers do with maps is not public, and
        the average makes every layer short enough for a linear classifier.

        Args:
            params: what `load` or `convert` returned.
            image: images as `prepare` returns them.
        """
        return nnx.merge(self.graphdef, params).describe(image)

    def features(
        self, params: Parameters, image: Float[Array, "batch side side 3"], layer: str
    ) -> Float[Array, "batch feature"]:
        """One layer of `describe`; under `jit` the layers after it are not computed.

        Raises:
            UsageError: the network has no layer of this name.
        """
        self.check_layer(layer)
        return self.describe(params, image)[layer]

    def check_side(self, side: int) -> None:
        """Raise UsageError unless the network takes images of this height and width."""
        multiple = self.kind.multiple
        if side != self.side and (not multiple or side < multiple or side % multiple):
            takes = f" or another multiple of {multiple}" if multiple else ""
            raise UsageError(f"{self.name}: images of side {side}: it takes {self.side}{takes}")

    def check_layer(self, layer: str) -> None:
        """Raise UsageError unless the network has a layer of this name."""
        if layer not in self.layers:
            raise UsageError(f"{self.name} has no layer '{layer}': its layers are {', '.join(self.layers)}")

    def convert(self, tensors: dict[str, np.ndarray], source: str) -> Parameters:
        """Convert a published state dict to this network's layout: kernels HWIO, linear layers [in, out], float32.

        Args:
            tensors: the tensors by their published names.
            source: where the tensors come from, for messages.

        Raises:
            UsageError: a tensor is missing, left over or of another shape, so the weights are of another network.
        """
        rest = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
        leaves = {path: self._take(rest, path, shape, source) for path, shape in self.shapes.items()}
        if rest:
            raise UsageError(f"{source}: not the weights of {self.name}, which has no '{min(rest)}'")
        return unflatten(leaves)

    def _take(self, rest: dict[str, np.ndarray], path: Path, shape: tuple[int, ...], source: str) -> np.ndarray:
        *module, leaf = path
        name = f"{self.kind.torch_module(tuple(module))}.{_LEAVES[str(leaf)]}"
        if name not in rest:
            raise UsageError(f"{source}: not the weights of {self.name}: '{name}' is missing")
        array = _layout(rest.pop(name), self.kind.flattened.get(".".join(map(str, module))))
        if array.shape != shape:
            raise UsageError(f"{source}: not the weights of {self.name}: '{name}' gives {array.shape}, not {shape}")
        return np.ascontiguousarray(array, np.float32)


def make(name: str, kind: Callable[..., ImageNetNetwork]) -> Pretrained:
    """The structure of a network, made without any array."""
    module = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
    shapes = {path: leaf.shape for path, leaf in flatten(nnx.to_pure_dict(nnx.state(module))).items()}
    return Pretrained(name=name, graphdef=nnx.graphdef(module), kind=type(module), shapes=shapes)


def flatten(params: Parameters) -> dict[Path, Any]:
    """The leaves of a tree by their paths."""
    return cast(dict[Path, Any], traverse_util.flatten_dict(params))


def unflatten(leaves: Mapping[Path, Any]) -> Parameters:
    """Inverse of `flatten`."""
    return cast(Parameters, traverse_util.unflatten_dict(leaves))


def _layout(array: np.ndarray, flattened: tuple[int, int, int] | None) -> np.ndarray:
    """PyTorch's OIHW or [out, in] as HWIO or [in, out]; PyTorch flattens maps channel first, NHWC channel last."""
    if flattened and array.shape[1:] == (math.prod(flattened),):
        array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(array.shape)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


no_values = nnx.initializers.zeros  # weights are always loaded, and tracing a random draw for each took seconds


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | str | None = None,
    groups: int = 1,
    bias: bool = False,
    arithmetic: Callable[..., Array] = lax.conv_general_dilated,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution with a square kernel.

    `padding` is on each side; None is half of the kernel, as in PyTorch, which differs from SAME if there is a stride.
    `arithmetic` replaces `lax.conv_general_dilated` and has its signature.
    """
    pads = kernel // 2 if padding is None else padding
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        stride,
        padding=pads,
        feature_group_count=groups,
        use_bias=bias,
        conv_general_dilated=arithmetic,
        kernel_init=no_values,
        rngs=rngs,
    )


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A fully connected layer."""
    return nnx.Linear(inputs, outputs, kernel_init=no_values, rngs=rngs)
