"""MixStyle: feature maps take a blend of their own and another example's style (Zhou, Yang, Qiao, Xiang, ICLR 2021).

The style of an example is the mean and the standard deviation of each channel over its pixels. Blending styles inside
the network makes training see the appearance of specimens that are not there.

Networks know nothing of it. Their layers offer their feature maps to `mix`, which changes them only while a training
step has opened `styles`.
"""

import contextlib
import contextvars
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LAYERS = 2
"""The first feature maps that a network computes are mixed; style is told apart in early layers."""
ALPHA = 0.1
"""Shares are of the distribution Beta(ALPHA, ALPHA), as published."""

_EPSILON = 1e-6
_STREAM = zlib.crc32(b"mixstyle")  # apart from the step's other random numbers


class _Mixer:
    """Mixes the first `LAYERS` maps of one forward pass."""

    def __init__(self, probability: float, key: Array):
        self._probability = probability
        self._keys = list(jax.random.split(jax.random.fold_in(key, _STREAM), LAYERS))

    def __call__(self, maps: Array, columns: int) -> Array:
        return mixed(maps, self._keys.pop(0), self._probability, columns=columns) if self._keys else maps


_current: contextvars.ContextVar[_Mixer | None] = contextvars.ContextVar("mixstyle", default=None)


@contextlib.contextmanager
def styles(probability: float, key: Array) -> Iterator[None]:
    """While it is open, one forward pass mixes styles with this probability in each layer; 0: it mixes none."""
    token = _current.set(_Mixer(probability, key) if probability else None)
    try:
        yield
    finally:
        _current.reset(token)


def mix(maps: Float[Array, "batch height width channel"], columns: int = 1) -> Array:
    """The maps with mixed styles where `styles` is open, else as they are.

    `columns` of the image stand side by side in the channels (see `columns.pack`).
    """
    mixer = _current.get()
    return maps if mixer is None or maps.ndim != 4 else mixer(maps, columns)


def mixed(
    maps: Float[Array, "batch height width channel"], key: Array, probability: float, *, columns: int = 1
) -> Float[Array, "batch height width channel"]:
    """Maps whose means and standard deviations are blended with those of a random partner in the (global) batch.

    Each example has a share of its own. With a probability of `1 - probability` the whole batch stays as it is. No
    gradient flows through the styles.
    """
    coin_key, share_key, partner_key = jax.random.split(key, 3)
    mean, deviation = _style(lax.stop_gradient(maps), columns)
    share = jax.random.beta(share_key, ALPHA, ALPHA, (len(maps), 1))
    share = jnp.where(jax.random.bernoulli(coin_key, probability), share, 1.0)
    partner = jax.random.permutation(partner_key, len(maps))
    factor = (share * deviation + (1 - share) * deviation[partner]) / deviation
    offset = share * mean + (1 - share) * mean[partner] - factor * mean
    factor, offset = (jnp.tile(part, columns)[:, None, None] for part in (factor, offset))
    return (maps.astype(jnp.float32) * factor + offset).astype(maps.dtype)


def _style(maps: Array, columns: int) -> tuple[Float[Array, "batch c"], Float[Array, "batch c"]]:
    """Mean and standard deviation of each channel over the pixels of each example, float32."""
    pixels = maps.astype(jnp.float32).reshape(len(maps), -1, maps.shape[-1] // columns)
    return pixels.mean(1), jnp.sqrt(pixels.var(1) + _EPSILON)
