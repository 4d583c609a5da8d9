"""What every network that labels pixels has in common: its output and the checks of its input."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hep2jax.errors import UsageError


class SegmenterOutput(NamedTuple):
    """Logits of every pixel; channel 0 is background, channel 1 + i is pattern i.

    Attributes:
        logits: float32 [B, H, W, K].
        side_logits: float32 [B, H, W, K] each, of the side heads in training; empty in evaluation and for networks
            without side heads.
    """

    logits: Float[Array, "batch height width output"]
    side_logits: tuple[Float[Array, "batch height width output"], ...] = ()


class Segmenter(nnx.Module):
    """Base of the networks: checks the image, casts it once to the compute dtype, calls `forward`.

    Attributes:
        stride: total down-sampling; height and width of the image must be multiples of it.
        in_channels: channels of the image.
        dtype: compute dtype; parameters and statistics are float32.
        dropout: drop rate before the heads.
    """

    stride: ClassVar[int]

    def __init__(self, *, in_channels: int, dtype: jnp.dtype, dropout: float):
        self.in_channels = in_channels
        self.dtype = dtype
        self.dropout = dropout

    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> SegmenterOutput:
        """Label the pixels of a batch of normalised images.

        Args:
            image: floating [B, H, W, C], background near 0 and bright structures near 1.
            train: normalise by the batch, update running averages, drop, and compute side heads.
            rngs: `nnx.Rngs(dropout=key)`, needed in training if the network drops.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        self._check(image.shape)
        return self.forward(image.astype(self.dtype), train=train, rngs=rngs)

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """The network itself; `image` is already checked and cast."""
        raise NotImplementedError

    def _check(self, shape: tuple[int, ...]) -> None:
        name = type(self).__name__
        if len(shape) != 4 or shape[3] != self.in_channels:
            raise UsageError(
                f"{name}: image batch of shape {shape}: must be (batch, height, width, {self.in_channels})"
            )
        if shape[1] % self.stride or shape[2] % self.stride or not shape[1] or not shape[2]:
            raise UsageError(
                f"{name}: images of {shape[1]}x{shape[2]} pixels: height and width must be multiples of "
                f"{self.stride}; pad or crop them (data.crop_size, evaluation.tile_size)"
            )
