# pyright: reportUnknownMemberType=false
"""Deep convolutional auto-encoders and a shallow classifier (Vununu, Lee, Kwon: Electronics 8(1):20, 2018; 2020)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.autoencoder import Decoder, Encoder
from hep2jax.models.classifier import Description, SquareClassifier
from hep2jax.models.layers import scale_channels
from hep2jax.models.network import Settings

CHANNELS = (16, 32, 64, 32)
"""Channels of the encoder's convolutions; the decoder's are these in reverse order."""
HIDDEN = 512


class Dcae(SquareClassifier):
    """Two auto-encoders, one for the image and one for its gradient; a small network classifies both codes.

    Sourced: a two-level hybrid of deep convolutional auto-encoders, one fed with the image and one with its gradient,
    the codes concatenated for a discriminative classifier (2018); features from reconstruction alone and a shallow
    non-linear classifier (2020).

    Our reading, because layers and sizes are not public:
    * the gradient is the Sobel magnitude, which is 1 at a step from 0 to 1 (`target`);
    * each encoder has four 3x3 convolutions with ReLU, each followed by a 2x2 max pool and BatchNorm, and a code of
      5x5x32; decoders mirror them without norms, their last convolution has no ReLU, and doubling repeats pixels;
    * the classifier has one hidden layer of 512 units with ReLU. Its gradient does not enter the encoders
      (`stop_gradient`), so both parts can train together: the codes are those of the reconstruction alone.
    """

    side = 80

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The size above at `width=1`."""
        super().__init__(settings)
        self.of_image = AutoEncoder(settings, rngs=rngs)
        self.of_gradient = AutoEncoder(settings, rngs=rngs)
        hidden = scale_channels(HIDDEN, settings.width)
        inputs = 2 * self.of_image.encode.channels * (self.side // 2 ** len(CHANNELS)) ** 2
        self.hidden = nnx.Linear(inputs, hidden, dtype=self.dtype, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.make_heads(settings, hidden, rngs=rngs)

    @override
    def target(self, image: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width _"]:
        """The image and its gradient, concatenated along the channels: float32 [B, H, W, 2 C], as `reconstruction`."""
        image = image.astype(jnp.float32)
        return jnp.concatenate([image, gradient_magnitude(image)], axis=-1)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        views = jnp.split(self.target(image).astype(self.dtype), 2, axis=-1)
        coders = (self.of_image, self.of_gradient)
        codes = [coder.encode(view, train=train) for coder, view in zip(coders, views, strict=True)]
        joined = lax.stop_gradient(jnp.concatenate([code.reshape(code.shape[0], -1) for code in codes], axis=-1))
        vector = nnx.relu(self.hidden(joined))
        if not train:
            return Description(vector)
        decoded = [coder.decode(code) for coder, code in zip(coders, codes, strict=True)]
        return Description(vector, reconstruction=jnp.concatenate(decoded, axis=-1))


class AutoEncoder(nnx.Module):
    """An encoder and the decoder that mirrors it."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """`CHANNELS` at the width of the settings, for the image's channels."""
        self.encode = Encoder(tuple(((count, 3),) for count in CHANNELS), settings, rngs=rngs)
        self.decode = Decoder(CHANNELS[::-1], settings, code=self.encode.channels, last_side=3, rngs=rngs)


def gradient_magnitude(image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Magnitude of Sobel's gradient, divided by 4; the outermost pixels are repeated beyond the border."""
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

    def smooth(x: Array, axis: int) -> Array:
        size = x.shape[axis]
        parts = (lax.slice_in_dim(x, start, size - 2 + start, axis=axis) for start in range(3))
        return sum((weight * part for weight, part in zip((0.25, 0.5, 0.25), parts, strict=True)), jnp.zeros(()))

    rows = smooth(padded[:, 2:] - padded[:, :-2], axis=2)
    columns = smooth(padded[:, :, 2:] - padded[:, :, :-2], axis=1)
    # The constant keeps the derivative finite where the image is flat.
    return jnp.sqrt(jnp.square(rows) + jnp.square(columns) + 1e-12)
