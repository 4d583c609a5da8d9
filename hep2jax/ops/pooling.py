"""The max pool."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from hep2jax.ops import blocks, lanes, plain
from hep2jax.ops.lanes import AnyImage, Columns
from hep2jax.ops.targets import current


def max_pool(x: AnyImage, size: int = 2) -> AnyImage:
    """Max pool of `size` x `size` pixels (at most 5) with the same stride; equal maxima share the gradient equally.

    Height and width must be multiples of `size`.

    On CPU it is computed as elementwise maxima of the shifted positions, and a bit mask of the maxima distributes the
    gradient. Forward and backward, 8 x 192 x 192 x 8 with size 2: pairwise maxima with their own gradients 2.6 ms, this
    hardly more, reshape and one `max` 7.8 ms, strided slices 6.0 ms, `reduce_window` (select-and-scatter gradient)
    37 ms; 64 x 40 x 40 x 16: pairwise maxima 3.3 ms, this 1.1 ms; all of `gao`, on busy cores: pairwise maxima 107 ms,
    this 79 ms.

    For columns side by side, which `stage` makes on TPU, it is `lanes.max_pool`. Otherwise it is `reduce_window`; masks
    took a fifth of a step on TPU (`fcn` at its published size, 32 images on a v5e: 70 ms with them, 51 ms without, by
    the compiler's estimate).
    """
    if isinstance(x, Columns):
        return lanes.max_pool(x, size)
    if current().platform == "cpu":
        return _by_masks(x, size)
    return plain.max_pool(x, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _by_masks(x: Array, size: int) -> Array:
    return functools.reduce(jnp.maximum, _positions(x, size))


def _forward(x: Array, size: int) -> tuple[Array, Array]:
    # The maxima are found by comparing the candidates with each other. Comparing them with the maximum afterwards would
    # lose gradient: XLA may compute the same number twice, in two fusions, with different rounding.
    candidates = [(value, jnp.int32(1 << index)) for index, value in enumerate(_positions(x, size))]
    value, mask = functools.reduce(_winner, candidates)
    # Without the fence the backward pass would compute the mask again for each position.
    return value, blocks.fence(mask, mask[0, 0, 0, 0] == 0)


def _winner(candidate: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    (value, mask), (other_value, other_mask) = candidate, other
    tied = jnp.where(other_value > value, other_mask, mask | other_mask)
    return jnp.maximum(value, other_value), jnp.where(value > other_value, mask, tied)


def _backward(size: int, winners: Array, cotangent: Array) -> tuple[Array]:
    batch, height, width, channels = cotangent.shape
    share = (cotangent / lax.population_count(winners)).astype(cotangent.dtype)
    bits = jnp.int32(1) << jnp.arange(size**2, dtype=jnp.int32).reshape(size, 1, size, 1)
    won = winners[:, :, None, :, None] & bits != 0
    spread = jnp.where(won, share[:, :, None, :, None], 0)
    return (spread.reshape(batch, height * size, width * size, channels),)


_by_masks.defvjp(_forward, _backward)


def _positions(x: Array, size: int) -> list[Array]:
    """The pixels at each position (row, column) within the blocks, [b, h2, w2, c] each."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // size, size, width // size, size, channels)
    return [cut[:, :, row, :, column] for row in range(size) for column in range(size)]
