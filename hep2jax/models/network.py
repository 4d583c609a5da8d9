"""What all networks have in common: their settings, and the check of their input."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from hep2jax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of every network; `width=1` is the published size."""

    num_outputs: int
    """Channels of the logits: the patterns; networks that label pixels have background as the first channel, and all
    channels for each pixel of a block."""
    dtype: jnp.dtype
    """Compute dtype, float32 or bfloat16; parameters, statistics and logits are float32 in either case."""
    in_channels: int = 1
    """Channels of the image, 1 or 3, for each pixel of a block."""
    pixel_block: int = 1
    """Side of the blocks of pixels whose values are channels inside the network, for networks that label pixels."""
    width: float = 1.0
    """Multiplier of the channel counts, see `layers.scale_channels`."""
    depth: int = 0
    """Number of layers, for networks that have variants of several depths; 0 is the published depth."""
    flatten_side: int = 0
    """Side of the images if a network flattens its last map before the heads; 0 means that the map is averaged."""
    dropout: float = 0.0
    """Drop rate before the heads."""
    regions: bool = False
    """Whether networks for cells average over the regions of a cell (see `layers.region_averages`)."""


class ImageNetwork(nnx.Module):
    """Base of the networks: checks the image and casts it to the compute dtype once.

    Every module that depends on the meaning of the classes is an attribute whose name begins with `head`, so that
    `hep2jax.training.state.graft` can leave it out.

    Attributes:
        pixel_block: side of the blocks of pixels whose values are channels inside the network.
        in_channels: channels of the image.
        dtype: compute dtype; parameters and statistics are float32.
        dropout: drop rate before the heads.
    """

    def __init__(self, settings: Settings):
        self.pixel_block = settings.pixel_block
        self.in_channels = settings.in_channels // self.pixel_block**2
        self.dtype = settings.dtype
        self.dropout = settings.dropout

    def side_problem(self, height: int, width: int) -> str:
        """What is wrong with images of this size and which keys change it; empty if the size fits."""
        raise NotImplementedError

    def accept(self, image: Array) -> Array:
        """The image batch [B, H, W, C] in the compute dtype.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        name, shape = type(self).__name__, image.shape
        if len(shape) != 4 or shape[3] != self.in_channels:
            raise UsageError(
                f"{name}: image batch of shape {shape}: must be (batch, height, width, {self.in_channels})"
            )
        problem = self.side_problem(shape[1], shape[2])
        if problem:
            raise UsageError(f"{name}: images of {shape[1]}x{shape[2]} pixels: {problem}")
        return image.astype(self.dtype)
