"""What every network that names the pattern of a cell has in common: its output, its heads, the size of its input."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.layers import Head, dropout
from hep2jax.models.network import ImageNetwork, Settings


class ClassifierOutput(NamedTuple):
    """Logits of every cell; channel i is pattern i.

    Attributes:
        logits: float32 [B, K].
        side_logits: float32 [B, K] each, of the side heads in training; empty in evaluation and for networks without
            side heads.
        reconstruction: float32 [B, H, W, C'] in training, of networks that reconstruct `Classifier.target`; else None.
    """

    logits: Float[Array, "batch pattern"]
    side_logits: tuple[Float[Array, "batch pattern"], ...] = ()
    reconstruction: Float[Array, "batch height width channel"] | None = None


class Description(NamedTuple):
    """What a network makes of a cell before any layer that knows the patterns.

    Attributes:
        vector: [B, F], the input of the last linear layer.
        sides: [B, F_i] each, the inputs of the side heads.
        reconstruction: [B, H, W, C'] in training, of networks that reconstruct.
    """

    vector: Float[Array, "batch feature"]
    sides: tuple[Float[Array, "batch _"], ...] = ()
    reconstruction: Float[Array, "batch height width channel"] | None = None


class Classifier(ImageNetwork):
    """Base of the networks that read single cells: subclasses describe a cell, linear heads name its pattern.

    Attributes:
        side: height and width of the input that the network is meant for; taken where a configuration names none.
    """

    side: int = 80
    head: Head
    head_sides: nnx.List[Head]

    def make_heads(self, settings: Settings, features: int, sides: Sequence[int] = (), *, rngs: nnx.Rngs) -> None:
        """The head on `features` numbers, and side heads on so many each; called once by each constructor."""
        heads = [Head(count, settings.num_outputs, dtype=self.dtype, rngs=rngs) for count in (features, *sides)]
        self.head, self.head_sides = heads[0], nnx.List(heads[1:])

    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> ClassifierOutput:
        """Name the patterns of a batch of normalised cells.

        Args:
            image: floating [B, H, W, C], background near 0 and bright structures near 1.
            train: normalise by the batch, update running averages, drop, compute side heads and reconstruction.
            rngs: `nnx.Rngs(dropout=key)`, needed in training if the network drops.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        return self.forward(self.accept(image), train=train, rngs=rngs)

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> ClassifierOutput:
        """`describe`, dropout, heads; `image` is already checked and cast."""
        described = self.describe(image, train=train)
        logits = self.head(dropout(described.vector, self.dropout, train=train, rngs=rngs))
        if not train:
            return ClassifierOutput(logits)
        sides = tuple(head(vector) for head, vector in zip(self.head_sides, described.sides, strict=True))
        reconstruction = described.reconstruction
        return ClassifierOutput(logits, sides, None if reconstruction is None else reconstruction.astype(jnp.float32))

    def features(
        self, image: Float[Array, "batch height width channel"], *, train: bool = False
    ) -> Float[Array, "batch feature"]:
        """The float32 vector before the last linear layer, for readers of other kinds.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        return self.describe(self.accept(image), train=train).vector.astype(jnp.float32)

    def target(self, image: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width _"]:
        """What `reconstruction` is compared with: the image itself, unless the network says otherwise."""
        return image

    def describe(self, image: Array, *, train: bool) -> Description:
        """The network without its heads; `image` is already checked and cast."""
        raise NotImplementedError


class PoolingClassifier(Classifier):
    """Base of the networks that average over the last map and so take images of many sizes.

    Attributes:
        stride: total down-sampling, the least height and width.
        divisible: whether height and width must be multiples of the stride, because of max pools.
    """

    stride: int = 16
    divisible: bool = False

    @override
    def side_problem(self, height: int, width: int) -> str:
        if min(height, width) < self.stride:
            return f"height and width must be at least {self.stride} (data.crop_size)"
        if self.divisible and (height % self.stride or width % self.stride):
            return f"height and width must be multiples of {self.stride} (data.crop_size)"
        return ""


class SquareClassifier(Classifier):
    """Base of the networks that flatten their last map, so that one size fits: `side`."""

    @override
    def side_problem(self, height: int, width: int) -> str:
        fits = (height, width) == (self.side, self.side)
        return "" if fits else f"height and width must be {self.side} (data.crop_size)"
