"""Building blocks of the networks: NHWC, SAME padding by default, float32 parameters, compute in the dtype given.

The formulations were chosen by timing forward and backward passes on a CPU; each docstring says what lost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Float32

from hep2jax.models import blocks, grey, mixstyle
from hep2jax.models import columns as packing

CHANNEL_MULTIPLE = 8
"""Channel counts are multiples of this: a narrower activation costs the bytes of 8 channels on TPU anyway."""

_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
_lecun_normal = nnx.initializers.lecun_normal()
_small_normal = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")


def scale_channels(channels: float, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 and at least 8."""
    return max(CHANNEL_MULTIPLE, round(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)


class BatchNorm(nnx.Module):
    """Batch normalisation whose statistics, scale and bias are float32 whatever the input is.

    Ioffe and Szegedy 2015. Why not `nnx.BatchNorm`: with bfloat16 inputs it rounds the running mean and variance
    to bfloat16 before it uses them, which multiplies the error of evaluation by about seven. Under `jit` with a
    sharded batch the mean is the mean of the global batch.

    Attributes:
        scale, bias: parameters, float32 [C].
        mean, var: running averages (biased variance), float32 [C].
    """

    def __init__(self, channels: int, *, zero_scale: bool = False, momentum: float = 0.9, epsilon: float = 1e-5):
        """Args as in the class; `zero_scale` starts the scale at 0 (last norm of a residual branch)."""
        self.scale = nnx.Param(jnp.zeros(channels) if zero_scale else jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "... channel"], *, train: bool, columns: int = 1) -> Float[Array, "... channel"]:
        """Normalise by the batch (and update the running averages) or, `train=False`, by the averages.

        `columns` of the image stand side by side in the channels (see `columns.pack`).
        """
        x = scale_and_shift(x, *self.coefficients(x, train=train, columns=columns), columns)
        return mixstyle.mix(x, columns)

    def coefficients(
        self, x: Float[Array, "... channel"], *, train: bool, columns: int = 1, sign: Array | int = 1
    ) -> tuple[Float32[Array, " c"], Float32[Array, " c"]]:
        """Factor and offset that normalise `x`; arguments as in a call. Channels of `x` come times their `sign`."""
        mean, var = self._batch_statistics(x, columns, sign) if train else (self.mean[...], self.var[...])
        factor = self.scale[...] * lax.rsqrt(var + self.epsilon)
        # Not (x - mean) * factor + bias: that form keeps x - mean for the backward pass, a second copy of x.
        return factor * sign, self.bias[...] - mean * factor

    def _batch_statistics(self, x: Array, columns: int, sign: Array | int) -> tuple[Array, Array]:
        # E[x^2] - E[x]^2: one pass over the activations. In float32 it is safe while |mean| < 100 deviations.
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        mean, square = (sums.mean(axes).reshape(columns, -1).mean(0) for sums in (x, jnp.square(x)))
        mean *= sign
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        for average, value in ((self.mean, mean), (self.var, var)):
            average[...] = self.momentum * average[...] + (1 - self.momentum) * lax.stop_gradient(value)
        return mean, var


def scale_and_shift(
    x: Float[Array, "... channel"], factor: Float32[Array, " c"], offset: Float32[Array, " c"], columns: int = 1
) -> Float[Array, "... channel"]:
    """`x * factor + offset`, computed in float32; `columns` of the image stand side by side in the channels."""
    return (x.astype(jnp.float32) * jnp.tile(factor, columns) + jnp.tile(offset, columns)).astype(x.dtype)


class ConvNorm(nnx.Module):
    """Convolution without bias (the norm would remove it), BatchNorm and, unless switched off, ReLU.

    Called with `pool`, a 2x2 max pool follows, and the norm and the ReLU are computed on what it leaves: both grow
    with their input where the norm's scale is not negative, and where it is, the input's sign is turned. The same
    numbers from a quarter of the elementwise work: `fcn` published, 128 images on a v5e, 151 instead of 169 ms, by the
    TPU compiler's estimate.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        relu: bool = True,
        zero_scale: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """He initialisation (fan-out); `zero_scale` as in `BatchNorm`."""
        sides = (kernel_size, kernel_size)
        # Holds the kernel; the convolution itself has several formulations, see `_convolve`.
        self.conv = nnx.Conv(in_channels, out_channels, sides, use_bias=False, kernel_init=_he_normal, rngs=rngs)
        self.norm = BatchNorm(out_channels, zero_scale=zero_scale)
        self.few = kernel_size > 1 and out_channels <= blocks.MOST_CHANNELS
        self.stride, self.relu, self.dtype = stride, relu, dtype

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, columns: int = 1, pool: bool = False
    ) -> Float[Array, "b h2 w2 k"]:
        """Height and width divided by the stride, rounded up, and halved by the `pool`.

        `columns` of the image stand side by side in the channels (see `columns.pack`), which needs a stride of 1; a
        pool leaves half as many of them.
        """
        if not pool:
            x = self.norm(self._convolve(x, columns), train=train, columns=columns)
            return nnx.relu(x) if self.relu else x
        sign = jnp.where(self.norm.scale[...] < 0, -1, 1)
        # Not on the kernel: seen with jax 0.10.2 on CPU, the pool's gradient is wrong where it reads a convolution's
        # own result inside a compiled function (right when run operation by operation).
        x = self._convolve(x, columns) * jnp.tile(sign, columns).astype(x.dtype)
        coefficients = self.norm.coefficients(x, train=train, columns=columns, sign=sign)
        x = max_pool(x) if columns == 1 else packing.max_pool(x, columns)
        left = max(1, columns // 2)
        x = mixstyle.mix(scale_and_shift(x, *coefficients, left), left)
        return nnx.relu(x) if self.relu else x

    def _convolve(self, x: Array, columns: int) -> Array:
        x, kernel = x.astype(self.dtype), self.conv.kernel[...].astype(self.dtype)
        if columns > 1:
            return packing.convolution(x, kernel, columns)
        return (blocks.convolution if self.few else grey.convolution)(x, kernel, self.stride)


class Head(nnx.Module):
    """Linear layer on channels to float32 logits. It starts small: all classes are nearly equally likely at first."""

    def __init__(self, in_channels: int, num_outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """From `in_channels` to `num_outputs`."""
        self.linear = nnx.Linear(in_channels, num_outputs, dtype=dtype, kernel_init=_small_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        """Logits of each pixel, or of each vector."""
        return self.linear(x).astype(jnp.float32)


class DenseUp(nnx.Module):
    """Dense up-sampling: a convolution to `factor**2 * out_channels`, then depth to space.

    With `kernel_size=1` it is exactly a transposed convolution with a `factor` x `factor` kernel and the same stride.
    No bias: a linear layer and a norm follow it everywhere but in the last layer, which asks for `use_bias`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        factor: int,
        kernel_size: int = 1,
        use_bias: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Channels in and out, the up-sampling factor and the side of the kernel."""
        self.conv = nnx.Conv(
            in_channels,
            out_channels * factor**2,
            (kernel_size, kernel_size),
            use_bias=use_bias,
            dtype=dtype,
            kernel_init=_lecun_normal,
            rngs=rngs,
        )
        self.factor = factor

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        """Height and width times `factor`."""
        return depth_to_space(self.conv(x), self.factor)


def depth_to_space(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 k"]:
    """Channels (row, column, k) of each pixel become a `factor` x `factor` block of pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, factor, factor, channels // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * factor, width * factor, -1)


def max_pool(x: Float[Array, "b h w c"], size: int = 2) -> Float[Array, "b h2 w2 c"]:
    """Max pool of `size` x `size` pixels (at most 5) with the same stride; equal maxima share the gradient equally.

    Height and width must be multiples of `size`. Elementwise maxima of the shifted positions, and a gradient that is
    dealt out by a bit mask of the winners. On CPU, forward and backward, 8 x 192 x 192 x 8 with size 2: pairwise maxima
    with their own gradients 2.6 ms, this hardly more, reshape and one `max` 7.8 ms, strided slices 6.0 ms,
    `reduce_window` (select-and-scatter gradient) 37 ms; 64 x 40 x 40 x 16: pairwise maxima 3.3 ms, this 1.1 ms; the
    whole of `gao`, on busy cores: pairwise maxima 107 ms, this 79 ms. Other platforms: `reduce_window`; the masks took
    a fifth of a step on TPU (`fcn` published, 32 images on a v5e: 70 ms with them, 51 ms without, by the compiler's
    estimate).
    """
    window = (size, size)
    return lax.platform_dependent(
        x,
        cpu=functools.partial(_max_pool, size=size),
        default=functools.partial(nnx.max_pool, window_shape=window, strides=window),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, size: int) -> Array:
    return functools.reduce(jnp.maximum, _positions(x, size))


def _max_pool_forward(x: Array, size: int) -> tuple[Array, Array]:
    # The winners are found by comparing the candidates with each other. Comparing them with the maximum afterwards
    # loses gradient: XLA may compute the same number twice, in two fusions, with different roundings.
    candidates = [(value, jnp.int32(1 << index)) for index, value in enumerate(_positions(x, size))]
    value, mask = functools.reduce(_winner, candidates)
    # Without the fence the mask is computed again in the backward pass, and for each of the positions.
    return value, blocks.fence(mask, mask[0, 0, 0, 0] == 0)


def _winner(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    (value, mask), (other_value, other_mask) = one, other
    tied = jnp.where(other_value > value, other_mask, mask | other_mask)
    return jnp.maximum(value, other_value), jnp.where(value > other_value, mask, tied)


def _max_pool_backward(size: int, winners: Array, cotangent: Array) -> tuple[Array]:
    batch, height, width, channels = cotangent.shape
    share = (cotangent / lax.population_count(winners)).astype(cotangent.dtype)
    bits = jnp.int32(1) << jnp.arange(size**2, dtype=jnp.int32).reshape(size, 1, size, 1)
    won = winners[:, :, None, :, None] & bits != 0
    spread = jnp.where(won, share[:, :, None, :, None], 0)
    return (spread.reshape(batch, height * size, width * size, channels),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _positions(x: Array, size: int) -> list[Array]:
    """The pixels at each position (row, column) of the blocks, [b, h2, w2, c] each."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // size, size, width // size, size, channels)
    return [cut[:, :, row, :, column] for row in range(size) for column in range(size)]


def global_average(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over the pixels, in float32."""
    return x.astype(jnp.float32).mean((1, 2))


def doubled_conv_general(x: Float[Array, "b h w c"], kernel: Float[Array, "i j c k"], *_, **__) -> Array:
    """SAME 3x3 or 5x5 convolution of the image with every pixel repeated 2x2; signature as `nnx.Conv` expects.

    The large image is never made: each of the four positions in a block sees 3x3 small pixels, so a 3x3 convolution to
    four times the channels and depth to space give the same numbers. In `dacn` at width 0.5 the last 5x5 convolution,
    to one channel, took more than half of a step of 1,100 ms when it ran on repeated pixels.
    """
    spread = _spread(kernel.shape[0])
    small = jnp.einsum("atu,bsv,uvck->tscabk", spread, spread, kernel.astype(jnp.float32))
    small = small.reshape(3, 3, x.shape[-1], -1).astype(x.dtype)
    return depth_to_space(grey.convolution(x, small), 2)


def _spread(side: int) -> np.ndarray:
    """[position in the pair, tap on small pixels, tap on repeated pixels]: 1 where the taps see the same pixel."""
    position, tap = np.mgrid[:2, :side]
    seen = (position + tap - side // 2) // 2 + 1
    return (seen[:, None] == np.arange(3)[None, :, None]).astype(np.float32)


def upsample(x: Float[Array, "b h w k"], factor: int) -> Float[Array, "b h2 w2 k"]:
    """Bilinear up-sampling by an integer factor (half-pixel centres), as two small matrix products.

    Meant for logits: few channels. The products are what TPUs do best, and on CPU they cost what the best other
    formulation costs (8 x 24 x 24 x 9 by 8, backward: 2 ms; a transposed convolution with a fixed kernel is
    hundreds of times slower there).
    """
    rows = jnp.asarray(interpolation_matrix(x.shape[1], factor), x.dtype)
    columns = jnp.asarray(interpolation_matrix(x.shape[2], factor), x.dtype)
    x = jnp.einsum("Hh,bhwk->bHwk", rows, x)
    return jnp.einsum("Ww,bHwk->bHWk", columns, x)


def interpolation_matrix(size: int, factor: int) -> np.ndarray:
    """Matrix [size * factor, size] of linear interpolation; positions beyond the outer centres take their value."""
    positions = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(size))).astype(np.float32)


def dropout(x: Array, rate: float, *, train: bool, rngs: nnx.Rngs | None) -> Array:
    """Inverted dropout in training; the key comes from `rngs.dropout()`, so that no module holds random state.

    Raises:
        ValueError: in training with a rate above 0 and no `rngs`.
    """
    if not train or rate == 0.0:
        return x
    if rngs is None:
        raise ValueError("a network with dropout needs rngs=nnx.Rngs(dropout=key) when it is called with train=True")
    keep = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)
