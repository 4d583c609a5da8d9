"""What the published ImageNet networks have in common: their input, their named layers, where weights come from."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

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
Parameters = dict


class ImageNetNetwork(nnx.Module):
    """Base of the networks: NHWC, float32, evaluation only (norms by their published averages, no dropout).

    Attributes:
        side: height and width of the image that the network was published for.
        multiple: other sides must be multiples of this; 0: only `side` fits, as the network flattens its last map.
        mean, deviation: of the grey levels (0 to 1) of each channel, as the network was trained.
        layers: names of what `describe` gives, fine to coarse.
        flattened: linear layers on a flattened map, by module path: (channels, height, width) of that map.
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
        """The name of a module in the published state dict; attributes are named as there unless overridden."""
        return ".".join(map(str, module))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A published network's structure; its arrays are apart, so that it can be closed over by `jax.jit`."""

    name: str
    graphdef: nnx.GraphDef
    kind: type[ImageNetNetwork]
    shapes: dict[Path, tuple[int, ...]]
    """Of every array, by its path."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be read, fine to coarse; the last is `logits`, of the 1,000 classes."""
        return self.kind.layers

    @property
    def side(self) -> int:
        """Height and width of the image that the network was published for."""
        return self.kind.side

    def prepare(
        self, grey: Float[Array, "batch height width"], side: int | None = None
    ) -> Float[Array, "batch side side 3"]:
        """Grey cells (0 background to 1 bright, clipped) as the network takes images.

        Resized to its side (linear, with anti-aliasing where they shrink), the grey repeated in three channels, then
        normalised by the mean and the standard deviation of the network's own training.

        Raises:
            UsageError: the network does not take this side.
        """
        side = side or self.side
        self.check_side(side)
        resized = jax.image.resize(jnp.clip(grey, 0, 1), (len(grey), side, side), "linear")
        mean, deviation = (np.array(row, np.float32) for row in (self.kind.mean, self.kind.deviation))
        return (resized[..., None] - mean) / deviation

    def describe(
        self, params: Parameters, image: Float[Array, "batch side side 3"]
    ) -> dict[str, Float[Array, "batch _"]]:
        """Every layer of `layers`, float32 [batch, width of the layer].

        Convolutional layers give the average of their (rectified and pooled) map over the pixels, fully connected ones
        their rectified output. The average is our reading: what the HEp-2 papers do with maps is not public, and it
        makes every layer short enough for a linear classifier.

        Args:
            params: what `load` or `convert` returned.
            image: normalised as by `prepare`.
        """
        return nnx.merge(self.graphdef, params).describe(image)

    def features(
        self, params: Parameters, image: Float[Array, "batch side side 3"], layer: str
    ) -> Float[Array, "batch feature"]:
        """One layer of `describe`; under `jit` nothing behind it is computed.

        Raises:
            UsageError: the network has no layer of this name.
        """
        self.check_layer(layer)
        return self.describe(params, image)[layer]

    def check_side(self, side: int) -> None:
        """UsageError unless the network takes images of this height and width."""
        multiple = self.kind.multiple
        if side != self.side and (not multiple or side < multiple or side % multiple):
            takes = f" or another multiple of {multiple}" if multiple else ""
            raise UsageError(f"{self.name}: images of side {side}: it takes {self.side}{takes}")

    def check_layer(self, layer: str) -> None:
        """UsageError unless the network has a layer of this name."""
        if layer not in self.layers:
            raise UsageError(f"{self.name} has no layer '{layer}': its layers are {', '.join(self.layers)}")

    def convert(self, tensors: dict[str, np.ndarray], source: str) -> Parameters:
        """A published state dict in this network's layout: kernels HWIO, linear layers [in, out], float32.

        Args:
            tensors: by their published names.
            source: where they come from, for messages.

        Raises:
            UsageError: a tensor is missing, left over or of another shape: the weights are of another network.
        """
        rest = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
        leaves = {path: self._take(rest, path, shape, source) for path, shape in self.shapes.items()}
        if rest:
            raise UsageError(f"{source}: not the weights of {self.name}, which has no '{min(rest)}'")
        return traverse_util.unflatten_dict(leaves)

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
    """The structure of a network, without making any array."""
    module = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(module)
    leaves: dict[Path, Any] = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    return Pretrained(name=name, graphdef=graphdef, kind=type(module), shapes=shapes)


def _layout(array: np.ndarray, flattened: tuple[int, int, int] | None) -> np.ndarray:
    """PyTorch's OIHW or [out, in] → HWIO or [in, out]; PyTorch flattens maps channel first, NHWC channel last."""
    if flattened and array.shape[1:] == (math.prod(flattened),):
        array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(array.shape)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


_no_values = nnx.initializers.zeros  # weights are always loaded; tracing a random draw for each took seconds


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
    """A square convolution; `padding` on each side, None: half the kernel, as PyTorch pads: with strides, not SAME.

    `arithmetic`: in place of `lax.conv_general_dilated`, with its signature.
    """
    around = kernel // 2 if padding is None else padding
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        stride,
        padding=around,
        feature_group_count=groups,
        use_bias=bias,
        conv_general_dilated=arithmetic,
        kernel_init=_no_values,
        rngs=rngs,
    )


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A fully connected layer."""
    return nnx.Linear(inputs, outputs, kernel_init=_no_values, rngs=rngs)
