"""MixStyle: feature maps get a blend of their own and another example's style (Zhou, Yang, Qiao, Xiang, ICLR 2021).

The style of an example is the mean and the standard deviation of each channel over its pixels. Blending styles inside
the network shows the training the appearance of specimens that are not in the data.

Networks do not depend on it. Their layers pass their feature maps to `mix`, which changes them only while a training
step has opened `styles`.
"""

import contextlib
import contextvars
import zlib
from collections.abc import Generator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hep2jax import ops

LAYERS = 2
"""Number of feature maps that are mixed, the first that a network computes: early layers represent style."""
ALPHA = 0.1
"""Shares are drawn from Beta(ALPHA, ALPHA), as published."""

_EPSILON = 1e-6
_STREAM = zlib.crc32(b"mixstyle")  # keeps these random numbers apart from the step's others


class _Mixer:
    """Mixes the first `LAYERS` maps of one forward pass."""

    def __init__(self, probability: float, key: Array):
        self._probability = probability
        self._keys = list(jax.random.split(jax.random.fold_in(key, _STREAM), LAYERS))

    def __call__(self, maps: ops.AnyImage) -> ops.AnyImage:
        return mixed(maps, self._keys.pop(0), self._probability) if self._keys else maps


_current: contextvars.ContextVar[_Mixer | None] = contextvars.ContextVar("mixstyle", default=None)


@contextlib.contextmanager
def styles(probability: float, key: Array) -> Generator[None]:
    """While this context is open, one forward pass mixes styles in each layer with this probability; 0 mixes none."""
    token = _current.set(_Mixer(probability, key) if probability else None)
    try:
        yield
    finally:
        _current.reset(token)


def mix(maps: ops.AnyImage) -> ops.AnyImage:
    """The maps [batch, height, width, channel], with mixed styles if `styles` is open, else as they are."""
    mixer = _current.get()
    # A layer may also normalise vectors, which have no style.
    return maps if mixer is None or jax.tree.leaves(maps)[0].ndim != 4 else mixer(maps)


def mixed(maps: ops.AnyImage, key: Array, probability: float) -> ops.AnyImage:
    """Maps whose means and standard deviations are blended with those of a random partner in the (global) batch.

    Each example has its own share. With a probability of `1 - probability` the whole batch stays as it is. No gradient
    flows through the styles.
    """
    coin_key, share_key, partner_key = jax.random.split(key, 3)
    mean, deviation = _style(jax.tree.map(lax.stop_gradient, maps))
    share = jax.random.beta(share_key, ALPHA, ALPHA, (len(mean), 1))
    share = jnp.where(jax.random.bernoulli(coin_key, probability), share, 1.0)
    partner = jax.random.permutation(partner_key, len(mean))
    factor = (share * deviation + (1 - share) * deviation[partner]) / deviation
    offset = share * mean + (1 - share) * mean[partner] - factor * mean
    return ops.scale_and_shift(maps, factor, offset)


def _style(maps: ops.Image) -> tuple[Float[Array, "batch c"], Float[Array, "batch c"]]:
    """Mean and standard deviation of each channel over the pixels of each example, float32."""
    mean, square = ops.moments(maps, together=1)
    return mean, jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0) + _EPSILON)
