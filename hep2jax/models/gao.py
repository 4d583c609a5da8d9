# pyright: reportUnknownMemberType=false
"""The cell CNN of Gao, Wang, Zhou, Zhang (ICARCV 2014; IEEE JBHI 21(2):416-428, 2017; arXiv 1504.02531)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from hep2jax import ops
from hep2jax.models import mixstyle
from hep2jax.models.classifier import Description, SquareClassifier
from hep2jax.models.layers import scale_channels
from hep2jax.models.network import Settings

LAYERS = ((6, 7, 2), (16, 4, 3), (32, 3, 3))
"""(channels, side of the kernel, size of the max pool) of the three convolutions."""
HIDDEN = 150
"""Units of the fully connected layer."""

_lecun_normal = nnx.initializers.lecun_normal()


class Gao(SquareClassifier):
    """Three VALID convolutions with max pools and two fully connected layers: 50,748 parameters for six patterns.

    Sourced (three independent public re-implementations agree): 78x78x1, conv 7x7 to 6 maps, max pool 2, conv 4x4 to
    16, max pool 3, conv 3x3 to 32, max pool 3 (which leaves 3x3x32), 150 units, one output per pattern;
    f(x) = 1.7159 tanh(2x/3) after each convolution and after the 150 units.

    Our reading: LeCun's initialisation, for which this f is designed (LeCun et al. 1998); the last layer starts small.
    At widths other than 1 the channel counts are rounded to multiples of 8.
    """

    side = 78

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        """The published size at `width=1`."""
        super().__init__(settings)
        self.layers: nnx.List[PooledConv] = nnx.List()
        channels, side = settings.in_channels, self.side
        for published, kernel_size, pool in LAYERS:
            out = _scaled(published, settings.width)
            self.layers.append(PooledConv(channels, out, kernel_size, pool, dtype=self.dtype, rngs=rngs))
            channels, side = out, (side - kernel_size + 1) // pool
        hidden = _scaled(HIDDEN, settings.width)
        self.hidden = nnx.Linear(channels * side**2, hidden, dtype=self.dtype, kernel_init=_lecun_normal, rngs=rngs)
        self.make_heads(settings, hidden, rngs=rngs)

    @override
    def describe(self, image: Array, *, train: bool) -> Description:
        x = image
        for layer in self.layers:
            x = layer(x)
        return Description(scaled_tanh(self.hidden(x.reshape(x.shape[0], -1))))


class PooledConv(nnx.Module):
    """VALID convolution, max pool, bias, scaled tanh.

    Bias and activation are monotonic, so they give the same numbers after the pool as before it, with a quarter or a
    ninth of the work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        pool: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """`pool` is both the size and the stride of the pool."""
        sides = (kernel_size, kernel_size)
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            sides,
            padding="VALID",
            use_bias=False,
            dtype=dtype,
            kernel_init=_lecun_normal,
            rngs=rngs,
        )
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.pool = pool

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        """Each side of the result has (side - kernel size + 1) / pool pixels."""
        kernel = self.conv.kernel[...].astype(x.dtype)
        x = ops.conv_pool(x, kernel, self.pool)
        return scaled_tanh(mixstyle.mix(x + self.bias[...].astype(x.dtype)))


def scaled_tanh(x: Array) -> Array:
    """LeCun's sigmoid, 1.7159 tanh(2x/3): f(1) = 1, f(-1) = -1."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def _scaled(channels: int, width: float) -> int:
    return channels if width == 1.0 else scale_channels(channels, width)
