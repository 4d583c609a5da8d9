"""One U-Net for segmentation, pattern and intensity (Percannella et al., ICPR 2022; AIIM 2025)."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.layers import Head, dropout, global_average, scale_channels
from hep2jax.models.network import ImageNetwork, Settings
from hep2jax.models.unet import DoubleConv
from hep2jax.ops import max_pool, upsample

CHANNELS = (64, 128, 256, 512, 512)
"""Channels of the five levels; the last is the bottleneck."""
HIDDEN = 512
"""Units of the fully connected layer of each head."""
STRIDE = 16


class JointOutput(NamedTuple):
    """The network's output for each patch.

    Attributes:
        mask: float32 [B, H, W, 1], logit of each pixel being cell.
        pattern: float32 [B, K], logits, one channel per pattern.
        intensity: float32 [B], logit of the higher of two grades.
    """

    mask: Float[Array, "batch height width 1"]
    pattern: Float[Array, "batch pattern"]
    intensity: Float[Array, " batch"]


class JointUNet(ImageNetwork):
    """U-Net of five levels whose bottleneck also feeds two fully connected heads.

    Percannella et al., ICPR 2022 (doi 10.1109/ICPR56361.2022.9956212) and Artificial Intelligence in Medicine 2025
    (doi 10.1016/j.artmed.2024.103031). Sourced (public code of that work): 64 to 512 channels, bilinear up-sampling,
    one mask logit; the bottleneck of a 384 x 384 patch, 24 x 24 x 512 = 294,912 numbers, flattened into two heads of
    512 units with ReLU, one for the patterns and one for the intensity.

    Our reading: BatchNorm after each convolution, and in each level on the way up a first convolution to half of its
    input's channels, as in the public U-Net which that code follows; interpolation between half-pixel centres.
    Our addition: with `flatten_side=0` the heads see the mean of the bottleneck instead, so that a patch may have any
    size, and 302 of 319 million parameters are not needed.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The published size at `width=1` and `flatten_side=384`."""
        super().__init__(settings)
        width, dtype = settings.width, settings.dtype
        levels = [scale_channels(channels, width) for channels in CHANNELS]
        inputs = [settings.in_channels, *levels[:-1]]
        self.down = nnx.List([DoubleConv(a, b, dtype=dtype, rngs=rngs) for a, b in zip(inputs, levels, strict=True)])
        self.up = nnx.List(self._up_blocks(levels, rngs))
        self.mask = Head(levels[0], 1, dtype=dtype, rngs=rngs)
        self.flatten_side = settings.flatten_side
        features = levels[-1] * max(1, settings.flatten_side // STRIDE) ** 2
        hidden = scale_channels(HIDDEN, width)
        he = nnx.initializers.he_normal()
        self.pattern = nnx.Linear(features, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.head = Head(hidden, settings.num_outputs, dtype=dtype, rngs=rngs)
        self.intensity = nnx.Linear(features, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.grade = Head(hidden, 1, dtype=dtype, rngs=rngs)

    def _up_blocks(self, levels: list[int], rngs: nnx.Rngs) -> list[DoubleConv]:
        """The blocks of the way up. Each takes a skip and the result from below; its result goes with the next skip."""
        blocks: list[DoubleConv] = []
        below = levels[-1]
        for level, out in zip(levels[-2::-1], [*levels[-3::-1], levels[0]], strict=True):
            joined = level + below
            blocks.append(DoubleConv(joined, out, middle=joined // 2, dtype=self.dtype, rngs=rngs))
            below = out
        return blocks

    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> JointOutput:
        """Segment, classify and grade a batch of normalised patches; arguments as in `Segmenter`."""
        skips: list[Array] = []
        x = self.accept(image)
        for index, block in enumerate(self.down):
            x = block(max_pool(x) if index else x, train=train)
            skips.append(x)
        described = self._describe(skips.pop(), train=train, rngs=rngs)
        for block in self.up:
            x = block(jnp.concatenate([skips.pop(), upsample(x, 2)], axis=-1), train=train)
        pattern = self.head(nnx.relu(self.pattern(described)))
        return JointOutput(self.mask(x), pattern, self.grade(nnx.relu(self.intensity(described)))[..., 0])

    def _describe(self, bottleneck: Array, *, train: bool, rngs: nnx.Rngs | None) -> Array:
        flat = bottleneck.reshape(len(bottleneck), -1) if self.flatten_side else global_average(bottleneck)
        return dropout(flat.astype(self.dtype), self.dropout, train=train, rngs=rngs)

    @override
    def side_problem(self, height: int, width: int) -> str:
        side = self.flatten_side
        if side and (height, width) != (side, side):
            return f"height and width must be model.flatten_side={side} (data.crop_size, evaluation.tile_size)"
        if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
            return f"height and width must be multiples of {STRIDE} (data.crop_size, evaluation.tile_size)"
        return ""
