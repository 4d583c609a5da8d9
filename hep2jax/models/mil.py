# pyright: reportUnknownMemberType=false
"""Attention-based multiple-instance learning over the tiles of a specimen (Ilse, Tomczak, Welling, ICML 2018)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax.models.classifier import ClassifierOutput
from hep2jax.models.layers import Head, dropout, global_average, scale_channels
from hep2jax.models.network import ImageNetwork, Settings
from hep2jax.models.residual import BASIC_STAGE_CHANNELS, ResidualTrunk, basic

DEPTHS = (1, 1, 1, 1)
"""Residual modules in each stage of the encoder of tiles."""
ATTENTION_UNITS = 128
"""Hidden units of the attention, as in the authors' public code."""
LEAST_SIDE = 16


class TileOutput(NamedTuple):
    """The output for each tile, before the tiles of a specimen are pooled.

    Attributes:
        logits: float32 [N, K], one channel per pattern.
        attention: float32 [N], scores; their softmax over a bag gives the weights of its tiles.
    """

    logits: Float[Array, "tile pattern"]
    attention: Float[Array, " tile"]


def pool(output: TileOutput, bags: int) -> ClassifierOutput:
    """Logits of each of `bags` bags. All bags have the same number of tiles, and `output` holds them bag by bag.

    The head is linear and the weights of a bag have sum 1, so the weighted mean of the tiles' logits equals the head's
    output for the weighted mean of their vectors, which is the form of Ilse et al.
    """
    weights = jax.nn.softmax(output.attention.reshape(bags, -1))
    logits = output.logits.reshape(bags, -1, output.logits.shape[-1])
    return ClassifierOutput(jnp.einsum("bt,btk->bk", weights, logits))


class Mil(ImageNetwork):
    """Residual encoder of tiles, gated attention, one linear layer.

    Sourced (Ilse, Tomczak, Welling 2018, section 2.4, equation 9): a bag is represented by sum_k a_k h_k with
    a_k = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k))), where h_k is the vector of its tile k; U, V and w have no
    biases; one linear layer classifies the pattern.

    Our reading: the encoder has four stages of one basic residual module each (ResNet-10), the stem that the other
    networks here use for small images, and a global average, because the encoder of the paper is for other tissue;
    K patterns instead of two.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The channels of ResNet-18 at `width=1`."""
        super().__init__(settings)
        self.trunk = ResidualTrunk(settings, DEPTHS, basic, stage_channels=BASIC_STAGE_CHANNELS, fine=True, rngs=rngs)
        channels, units = self.trunk.channels[-1], scale_channels(ATTENTION_UNITS, settings.width)
        self.content = nnx.Linear(channels, units, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.gate = nnx.Linear(channels, units, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.score = nnx.Linear(units, 1, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.head = Head(channels, settings.num_outputs, dtype=self.dtype, rngs=rngs)

    def __call__(
        self, image: Float[Array, "tile height width channel"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> TileOutput:
        """Read each tile by itself; `pool` combines them to bags. Arguments as in `Classifier`."""
        vector = global_average(self.trunk(self.accept(image), train=train)[-1])
        vector = dropout(vector, self.dropout, train=train, rngs=rngs)
        gated = nnx.tanh(self.content(vector)) * nnx.sigmoid(self.gate(vector))
        return TileOutput(self.head(vector), self.score(gated)[..., 0].astype(jnp.float32))

    @override
    def side_problem(self, height: int, width: int) -> str:
        fits = min(height, width) >= LEAST_SIDE
        return "" if fits else f"height and width must be at least {LEAST_SIDE} (data.crop_size, evaluation.tile_size)"
