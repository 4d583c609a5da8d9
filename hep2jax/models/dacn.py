"""DACN, the deep auto-encoding classification network (Liu, Xu, Shen, Garibaldi, Qiu, ISBI 2017, pp. 1019-1023)."""

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.autoencoder import Decoder, Encoder
from hep2jax.models.classifier import Description, SquareClassifier
from hep2jax.models.layers import scale_channels
from hep2jax.models.network import Settings

ENCODER = (((16, 7),), ((32, 5),), ((64, 3), (64, 3)), ((64, 3), (64, 3)))
"""(channels, side of the kernel) of the convolutions before each 2x2 max pool."""
DECODER = (64, 64, 64, 128)
"""Channels of the 3x3 convolutions before each doubling; a 5x5 convolution to the image's channels ends it."""
HIDDEN = 1024


class Dacn(SquareClassifier):
    """An encoder whose code is both decoded to the image and classified.

    Sourced (the public re-implementation): SAME padding, the encoder's table above, BatchNorm after each pool; the
    decoder's table, each row followed by doubling; from the flattened code 1024 units, ReLU, one output per pattern.

    Our reading: bias and ReLU after every convolution except the decoder's last; doubling repeats pixels; the input has
    80 pixels (any multiple of 16 would do); the weight of the reconstruction is `loss.reconstruction_weight`, applied
    to the mean and not to the sum of the squared errors. The softmax which that code puts before a softmax
    cross-entropy is not copied.
    """

    side = 80

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The tables above at `width=1`."""
        super().__init__(settings)
        self.encoder = Encoder(ENCODER, settings, rngs=rngs)
        code = self.encoder.channels
        self.decoder = Decoder(DECODER, settings, code=code, last_side=5, rngs=rngs)
        hidden, inputs = scale_channels(HIDDEN, settings.width), code * (self.side // 2 ** len(ENCODER)) ** 2
        self.hidden = nnx.Linear(inputs, hidden, dtype=self.dtype, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.make_heads(settings, hidden, rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        code = self.encoder(image, train=train)
        vector = nnx.relu(self.hidden(code.reshape(code.shape[0], -1)))
        return Description(vector, reconstruction=self.decoder(code) if train else None)
