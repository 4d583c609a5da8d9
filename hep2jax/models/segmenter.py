"""What all networks that label pixels have in common: their output and the size of their input."""

from typing import ClassVar, NamedTuple

from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.network import ImageNetwork
from hep2jax.ops import depth_to_space, space_to_depth


class SegmenterOutput(NamedTuple):
    """Logits of every pixel; channel 0 is background, channel 1 + i is pattern i.

    Attributes:
        logits: float32 [B, H, W, K]; in training also [B, h, w, p, K], scores of blocks of p = H/h * W/w pixels, row by
            row.
        side_logits: float32 [B, h, w, K] each, of the side heads in training, where each stands for H/h by W/w pixels;
            empty in evaluation and for networks without side heads.
    """

    logits: Float[Array, "batch height width *pixel output"]
    side_logits: tuple[Float[Array, "batch _ _ output"], ...] = ()


class Segmenter(ImageNetwork):
    """Base of the networks that label pixels.

    Attributes:
        stride: total down-sampling; height and width of the image must be multiples of it, times `pixel_block`.
    """

    stride: ClassVar[int]

    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> SegmenterOutput:
        """Label the pixels of a batch of normalised images.

        Args:
            image: floating [B, H, W, C], background near 0 and bright structures near 1.
            train: normalise by the batch, update running averages, apply dropout, and compute side heads.
            rngs: `nnx.Rngs(dropout=key)`, needed in training if the network has dropout.

        Raises:
            UsageError: at trace time, if the image does not fit the network.
        """
        blocks = space_to_depth(self.accept(image), self.pixel_block)
        output = self.forward(blocks, train=train, rngs=rngs)
        if self.pixel_block == 1:
            return output
        return SegmenterOutput(
            depth_to_space(output.logits, self.pixel_block),
            tuple(depth_to_space(logits, self.pixel_block) for logits in output.side_logits),
        )

    def forward(self, image: Array, *, train: bool, rngs: nnx.Rngs | None) -> SegmenterOutput:
        """The network itself; `image` is already checked, cast and, with `pixel_block`, folded into channels."""
        raise NotImplementedError

    @override
    def side_problem(self, height: int, width: int) -> str:
        stride = self.stride * self.pixel_block
        if height and width and not height % stride and not width % stride:
            return ""
        return (
            f"height and width must be multiples of {stride}; pad or crop them (data.crop_size, evaluation.tile_size)"
        )
