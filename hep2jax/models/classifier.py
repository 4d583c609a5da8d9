"""What all networks that classify cells have in common: their output, their heads, and the size of their input."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.layers import REGIONS, Head, dropout, global_average, region_averages
from hep2jax.models.network import ImageNetwork, Settings


class ClassifierOutput(NamedTuple):
    """Logits of every cell; channel i is pattern i.

    Attributes:
        logits: float32 [B, K].
        side_logits: float32 [B, K] each, of the side heads in training; empty in evaluation and for networks without
            side heads.
        reconstruction: float32 [B, H, W, C'] in training, for networks that reconstruct `Classifier.target`; else None.
    """

    logits: Float[Array, "batch pattern"]
    side_logits: tuple[Float[Array, "batch pattern"], ...] = ()
    reconstruction: Float[Array, "batch height width channel"] | None = None


class Description(NamedTuple):
    """A network's representation of cells before any layer that depends on the patterns.

    Attributes:
        vector: [B, F], the input of the last linear layer.
        sides: [B, F_i] each, the inputs of the side heads.
        reconstruction: [B, H, W, C'] in training, for networks that reconstruct.
    """

    vector: Float[Array, "batch feature"]
    sides: tuple[Float[Array, "batch _"], ...] = ()
    reconstruction: Float[Array, "batch height width channel"] | None = None


class Classifier(ImageNetwork):
    """Base of the networks that read single cells: subclasses describe a cell, and linear heads classify its pattern.

    Attributes:
        side: height and width of the input that the network is meant for; the default of a configuration.
    """

    side: int = 80
    head: Head
    head_sides: nnx.List[Head]

    def make_heads(self, settings: Settings, features: int, sides: Sequence[int] = (), *, rngs: nnx.Rngs) -> None:
        """Make the head on `features` numbers, and side heads on `sides` numbers; each constructor calls this once."""
        heads = [Head(count, settings.num_outputs, dtype=self.dtype, rngs=rngs) for count in (features, *sides)]
        self.head, self.head_sides = heads[0], nnx.List(heads[1:])

    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> ClassifierOutput:
        """Classify the patterns of a batch of normalised cells.

        Args:
            image: floating [B, H, W, C], background near 0 and bright structures near 1.
            train: normalise by the batch, update running averages, apply dropout, compute side heads and
                reconstruction.
            rngs: `nnx.Rngs(dropout=key)`, needed in training if the network has dropout.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        return self.forward(self.accept(image), train=train, rngs=rngs)

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> ClassifierOutput:
        """Apply `describe`, dropout and the heads; `image` is already checked and cast."""
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
        """The float32 vector before the last linear layer, for use by other classifiers.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        return self.describe(self.accept(image), train=train).vector.astype(jnp.float32)

    def target(self, image: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width _"]:
        """What `reconstruction` is compared with: the image itself, unless a network overrides this."""
        return image

    def describe(self, image: Array, *, train: bool) -> Description:
        """The network without its heads; `image` is already checked and cast."""
        raise NotImplementedError


class PoolingClassifier(Classifier):
    """Base of the networks that average over the last feature map and so take images of many sizes.

    Attributes:
        stride: total down-sampling; height and width must be at least this.
        divisible: whether height and width must be multiples of the stride, because of max pools.
        regions: whether maps are averaged over the regions of a cell instead of all pixels.
    """

    stride: int = 16
    divisible: bool = False

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.regions = settings.regions

    def average(self, maps: Sequence[Array], image: Array) -> Float[Array, "batch feature"]:
        """Means of the last feature map over its pixels; with `regions`, of the last two maps over each region.

        Args:
            maps: [B, H_i, W_i, C_i] each, from fine to coarse.
            image: the normalised image, whose last channel is the depth if there are regions.
        """
        if not self.regions:
            return global_average(maps[-1])
        depth = image[..., -1].astype(jnp.float32)
        return jnp.concatenate([region_averages(x, depth) for x in maps[-2:]], axis=-1)

    def count_averages(self, channels: Sequence[int]) -> int:
        """Number of features that `average` returns for maps with these channels."""
        return len(REGIONS) * sum(channels[-2:]) if self.regions else channels[-1]

    @override
    def side_problem(self, height: int, width: int) -> str:
        if min(height, width) < self.stride:
            return f"height and width must be at least {self.stride} (data.crop_size)"
        if self.divisible and (height % self.stride or width % self.stride):
            return f"height and width must be multiples of {self.stride} (data.crop_size)"
        return ""


class SquareClassifier(Classifier):
    """Base of the networks that flatten their last feature map, so that the input must have the size `side`."""

    @override
    def side_problem(self, height: int, width: int) -> str:
        fits = (height, width) == (self.side, self.side)
        return "" if fits else f"height and width must be {self.side} (data.crop_size)"
