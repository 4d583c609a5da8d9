"""Building blocks of the networks: NHWC, SAME padding, float32 parameters, compute in the dtype given.

The formulations were chosen by timing forward and backward passes on a CPU; each docstring says what lost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

CHANNEL_MULTIPLE = 8
"""Channel counts are multiples of this: a narrower activation costs the bytes of 8 channels on TPU anyway."""

GREY_CHANNELS = 16
"""Up to this many channels `grey_convolution` wins on CPU: at 32 it gives nothing."""

_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
_lecun_normal = nnx.initializers.lecun_normal()
_small_normal = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")


def scale_channels(channels: int, width: float) -> int:
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

    def __call__(self, x: Float[Array, "... channel"], *, train: bool) -> Float[Array, "... channel"]:
        """Normalise by the batch (and update the running averages) or, `train=False`, by the averages."""
        mean, var = self._batch_statistics(x) if train else (self.mean[...], self.var[...])
        factor = self.scale[...] * lax.rsqrt(var + self.epsilon)
        # Not (x - mean) * factor + bias: that form keeps x - mean for the backward pass, a second copy of x.
        offset = self.bias[...] - mean * factor
        return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
        # E[x^2] - E[x]^2: one pass over the activations. In float32 it is safe while |mean| < 100 deviations.
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        var = jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0.0)
        for average, value in ((self.mean, mean), (self.var, var)):
            average[...] = self.momentum * average[...] + (1 - self.momentum) * lax.stop_gradient(value)
        return mean, var


class ConvNorm(nnx.Module):
    """Convolution without bias (the norm would remove it), BatchNorm and, unless switched off, ReLU."""

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
        narrow = in_channels == 1 and out_channels <= GREY_CHANNELS
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            (kernel_size, kernel_size),
            strides=stride,
            use_bias=False,
            dtype=dtype,
            kernel_init=_he_normal,
            conv_general_dilated=_grey_convolution if narrow else lax.conv_general_dilated,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_channels, zero_scale=zero_scale)
        self.relu = relu

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 k"]:
        """Height and width divided by the stride, rounded up."""
        x = self.norm(self.conv(x), train=train)
        return nnx.relu(x) if self.relu else x


class Head(nnx.Module):
    """1x1 convolution to float32 logits, with bias. It starts small: all classes are nearly equally likely at first."""

    def __init__(self, in_channels: int, num_outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """From `in_channels` to `num_outputs`."""
        self.linear = nnx.Linear(in_channels, num_outputs, dtype=dtype, kernel_init=_small_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w k"]:
        """Logits at the resolution of `x`."""
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def grey_convolution(
    image: Float[Array, "b h w 1"], kernel: Float[Array, "i j 1 k"], stride: int
) -> Float[Array, "b h2 w2 k"]:
    """SAME convolution of one channel to few, written for CPUs as a sum of shifted images times kernel entries.

    XLA's own forward pass is the slow part of such a convolution on CPU, its gradients are good: they stay. For
    8 x 192 x 192, forward and weight gradient: 3x3 to 8 channels 5 instead of 19 ms, 7x7 with stride 2 to 8 channels
    5 instead of 9 ms. Patches and one matrix product, and space to depth, lie between. Other platforms: XLA's.
    """
    return lax.platform_dependent(
        image,
        kernel,
        cpu=functools.partial(_shifted_convolution, stride=stride),
        default=functools.partial(_convolution, stride=stride),
    )


def _grey_forward(image: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return grey_convolution(image, kernel, stride), (image, kernel)


def _grey_backward(stride: int, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    return jax.vjp(functools.partial(_convolution, stride=stride), *residuals)[1](cotangent)


grey_convolution.defvjp(_grey_forward, _grey_backward)


def _convolution(image: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(image, kernel, (stride, stride), "SAME", dimension_numbers=numbers)


def _shifted_convolution(image: Array, kernel: Array, stride: int) -> Array:
    rows, columns = kernel.shape[:2]
    padding = lax.padtype_to_pads(image.shape[1:3], (rows, columns), (stride, stride), "SAME")
    height, width = (-(-size // stride) for size in image.shape[1:3])
    padded = jnp.pad(image, ((0, 0), *padding, (0, 0))).astype(jnp.float32)
    total = 0.0
    for row in range(rows):
        for column in range(columns):
            shifted = padded[:, row:, column:][:, ::stride, ::stride][:, :height, :width]
            total += shifted * kernel[row, column, 0].astype(jnp.float32)
    return jnp.asarray(total, image.dtype)


def _grey_convolution(image: Array, kernel: Array, strides: tuple[int, ...], *_, **__) -> Array:
    """`grey_convolution` with the signature that `nnx.Conv` expects."""
    return grey_convolution(image, kernel, strides[0])


def depth_to_space(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 k"]:
    """Channels (row, column, k) of each pixel become a `factor` x `factor` block of pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, factor, factor, channels // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * factor, width * factor, -1)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """2x2 max pool with stride 2 of even-sized maps; equal maxima share the gradient equally, pair by pair.

    Rows first, then columns, as two elementwise maxima: on CPU (8 x 192 x 192 x 8) forward and backward take 2.6 ms,
    reshape and one `max` 7.8 ms, strided slices 6.0 ms, `reduce_window` (select-and-scatter gradient) 37 ms.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    x = x.reshape(batch, height // 2, width // 2, 2, channels)
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


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
