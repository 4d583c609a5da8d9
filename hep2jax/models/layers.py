# pyright: reportUnknownMemberType=false
"""Building blocks of the networks: NHWC, SAME padding by default, float32 parameters, computation in a given dtype.

Operations that have several formulations are in `hep2jax.ops`.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hep2jax import ops
from hep2jax.models import mixstyle

CHANNEL_MULTIPLE = 8
"""Channel counts are multiples of this: a narrower activation costs the bytes of 8 channels on TPU anyway."""

_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
_lecun_normal = nnx.initializers.lecun_normal()
_small_normal = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")


def scale_channels(channels: float, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 and at least 8."""
    return max(CHANNEL_MULTIPLE, round(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)


_together: contextvars.ContextVar[int] = contextvars.ContextVar("statistics_of", default=0)


@contextlib.contextmanager
def statistics_of(examples: int) -> Generator[None]:
    """While this context is open, networks in training normalise by the statistics of groups of successive examples.

    These are ghost batches (Hoffer, Hubara, Soudry, NeurIPS 2017). The running averages take the mean over the groups.

    Args:
        examples: how many examples a group has, which divides the batch; 0: all of the batch.
    """
    token = _together.set(examples)
    try:
        yield
    finally:
        _together.reset(token)


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) with float32 statistics, scale and bias for any input dtype.

    `nnx.BatchNorm` is not used because with bfloat16 inputs it rounds the running mean and variance to bfloat16 before
    it uses them, which multiplies the error of evaluation by about seven. Under `jit` with a sharded batch the mean is
    that of the global batch, or of groups of its examples while `statistics_of` is open.

    Attributes:
        scale, bias: parameters, float32 [C].
        mean, var: running averages (biased variance), float32 [C].
    """

    def __init__(self, channels: int, *, zero_scale: bool = False, momentum: float = 0.9, epsilon: float = 1e-5):
        """`zero_scale` starts the scale at 0, for the last norm of a residual branch."""
        self.scale = nnx.Param(jnp.zeros(channels) if zero_scale else jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(self, x: ops.AnyImage, *, train: bool) -> ops.AnyImage:
        """Normalise [..., C] by the batch, and update the running averages; with `train=False`, by the averages."""
        return mixstyle.mix(ops.scale_and_shift(x, *self.coefficients(x, train=train)))

    def coefficients(self, x: ops.Image, sign: Array | int = 1, *, train: bool) -> tuple[ops.PerGroup, ops.PerGroup]:
        """Factor and offset that normalise `x`, whose channels are already multiplied by their `sign`."""
        mean, var = self._batch_statistics(x, sign) if train else (self.mean[...], self.var[...])
        factor = self.scale[...] * lax.rsqrt(var + self.epsilon)
        # The form (x - mean) * factor + bias would keep x - mean for the backward pass, which is a second copy of x.
        return factor * sign, self.bias[...] - mean * factor

    def _batch_statistics(self, x: ops.Image, sign: Array | int) -> tuple[Array, Array]:
        # E[x^2] - E[x]^2 needs one pass over the activations. In float32 it is safe while |mean| < 100 deviations.
        mean, square = ops.moments(x, together=_together.get())
        mean *= sign
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        for average, values in ((self.mean, mean), (self.var, var)):
            value = values.mean(0) if values.ndim > 1 else values
            # `average[...] = ...` would ask a traced value for its sharding, an error that takes longer in each layer.
            average.set_value(self.momentum * average[...] + (1 - self.momentum) * lax.stop_gradient(value))
        return mean, var


class ConvNorm(nnx.Module):
    """Convolution without bias (the norm would remove it), BatchNorm and, unless switched off, ReLU.

    If it is called with `pool`, a 2x2 max pool follows (see `ops.norm_pool`).
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
        # Only holds the kernel and is never called, because the convolution has several formulations (`ops.conv2d`).
        self.conv = nnx.Conv(in_channels, out_channels, sides, use_bias=False, kernel_init=_he_normal, rngs=rngs)
        self.norm = BatchNorm(out_channels, zero_scale=zero_scale)
        self.stride, self.relu, self.dtype = stride, relu, dtype

    def __call__(self, x: ops.AnyImage, *, train: bool, pool: bool = False) -> ops.AnyImage:
        """Height and width are divided by the stride, rounded up, and halved by the `pool`."""
        x = ops.conv2d(x, self.conv.kernel[...].astype(self.dtype), stride=self.stride)
        if pool:
            x = mixstyle.mix(
                ops.norm_pool(x, self.norm.scale[...], functools.partial(self.norm.coefficients, train=train))
            )
        else:
            x = self.norm(x, train=train)
        return ops.relu(x) if self.relu else x


class ConvStage(nnx.List[ConvNorm]):
    """A stage of VGG: a list of `ConvNorm` of stride 1 with the same number of channels, then a 2x2 max pool."""

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 k"]:
        """Height and width are halved."""

        def layers(x: ops.Image) -> ops.Image:
            convs: list[Callable[..., ops.Image]] = [*self]
            for conv in convs[:-1]:
                x = conv(x, train=train)
            return convs[-1](x, train=train, pool=True)

        return ops.stage(layers, x, channels=self[0].conv.out_features)


class Head(nnx.Module):
    """Linear layer on channels to float32 logits. It starts small, so that all classes are about equally likely."""

    def __init__(self, in_channels: int, num_outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """From `in_channels` to `num_outputs`."""
        self.linear = nnx.Linear(in_channels, num_outputs, dtype=dtype, kernel_init=_small_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        """Logits of each pixel, or of each vector."""
        return self.linear(x).astype(jnp.float32)


class DenseUp(nnx.Module):
    """Dense up-sampling: a convolution to `factor**2 * out_channels`, then depth to space.

    With `kernel_size=1` it is exactly a transposed convolution with a `factor` x `factor` kernel and the same stride.
    It has no bias by default, because a linear layer and a norm follow it everywhere except in the last layer, which
    sets `use_bias`.
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

    def __call__(
        self, x: Float[Array, "b h w c"], *, in_blocks: bool = False
    ) -> Float[Array, "b h2 w2 k"] | Float[Array, "b h w pixel k"]:
        """Height and width are multiplied by `factor`; `in_blocks`, the `factor` x `factor` pixels have their own axis.

        A loss of pixels needs no image, and on a TPU depth to space costs as much as the convolution. In blocks the
        kernel is rearranged instead, so that the pixels of a channel are adjacent: `dsfcn`'s head with its loss,
        forward and backward, takes 13 ms instead of 19 by the TPU compiler's estimate (128 images of 256 x 256 on a
        v5e), and 17 ms if the channels of a pixel are adjacent.
        """
        if not in_blocks:
            return ops.depth_to_space(self.conv(x), self.factor)
        y = ops.conv2d(x, self._by_channel(self.conv.kernel[...]).astype(self.conv.dtype))
        if self.conv.bias is not None:
            y += self._by_channel(self.conv.bias[...]).astype(y.dtype)
        return jnp.moveaxis(y.reshape(*y.shape[:3], -1, self.factor**2), 3, 4)

    def _by_channel(self, values: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """The order (pixel of the block, channel) of the last axis turned into (channel, pixel)."""
        return values.reshape(*values.shape[:-1], self.factor**2, -1).swapaxes(-1, -2).reshape(values.shape)


def global_average(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over the pixels, in float32."""
    return x.astype(jnp.float32).mean((1, 2))


REGIONS = ((0.45, jnp.inf), (0.0, 0.45), (-0.4, 0.0))
"""Ranges of depth, in cell radii: the inside of a cell, its border, and a ring outside, where Golgi bodies lie."""


def region_averages(x: Float[Array, "b h w c"], depth: Float[Array, "b side side"]) -> Float[Array, "b c_by_region"]:
    """Means over the pixels of each region of a cell, in float32, region by region.

    A pixel of the map counts by the share of its area that lies in the region. A region without pixels gives zeros.

    Args:
        x: a feature map.
        depth: depth of the pixels of the image that the map was computed from, in cell radii, positive inside.
    """
    shares = jnp.stack([(depth > low) & (depth <= high) for low, high in REGIONS], axis=-1).astype(jnp.float32)
    shape = (*x.shape[:3], len(REGIONS))
    weights = cast(Array, jax.image.resize(shares, shape, "linear"))
    weights /= jnp.maximum(weights.sum((1, 2), keepdims=True), 1e-3)
    return jnp.einsum("bhwr,bhwc->brc", weights, x.astype(jnp.float32)).reshape(len(x), -1)


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
