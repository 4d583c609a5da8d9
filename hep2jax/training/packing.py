"""Joins the many small arrays of a network's state, because the cost of starting a step grows with their number.

The state of `dsfcn` has 943 arrays; most belong to norms and biases and hold a few dozen numbers. With the small arrays
of each tree joined into one vector there are 261, a step starts in a fifth of the time (see PERFORMANCE.md), and a
device updates the joined parameters, their moments and their averages in one operation each.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A tree of arrays in which the float32 arrays with at most one axis are joined into one vector."""

    vector: PyTree
    """float32 [numbers]; whatever else JAX and optax put in its place, such as a norm."""
    others: Any
    """The tree, with None in place of each joined array."""
    shapes: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})
    """The shapes of the joined arrays."""


def pack(state: Any) -> Any:
    """Pack the trees of parameters and statistics in a `TrainState`, and the moments and averages of both.

    Trees with fewer than two arrays to join stay as they are.
    """
    # Moments and averages are found by their structure, which is that of the tree they belong to.
    structures = {jax.tree.structure(tree) for tree in (state.params, state.batch_stats) if _num_small(tree) > 1}

    def is_packable(node: Any) -> bool:
        return jax.tree.structure(node) in structures

    return jax.tree.map(lambda node: _join(node) if is_packable(node) else node, state, is_leaf=is_packable)


def unpack(tree: Any) -> Any:
    """Inverse of `pack`, for a state or a part of it. Trees that are not packed are returned as they are."""
    return jax.tree.map(lambda node: _split(node) if _is_packed(node) else node, tree, is_leaf=_is_packed)


def like(template: Any, tree: Any) -> Any:
    """`tree`, packed wherever `template` is packed."""
    return jax.tree.map(
        lambda node, part: _join(part) if _is_packed(node) else part, template, tree, is_leaf=_is_packed
    )


def _is_packed(node: Any) -> bool:
    return isinstance(node, Packed)


def _is_small(leaf: Any) -> bool:
    return leaf.ndim <= 1 and leaf.dtype == jnp.float32


def _num_small(tree: Any) -> int:
    return sum(_is_small(leaf) for leaf in jax.tree.leaves(tree))


def _join(tree: Any) -> Packed:
    small = [leaf for leaf in jax.tree.leaves(tree) if _is_small(leaf)]
    others = jax.tree.map(lambda leaf: None if _is_small(leaf) else leaf, tree)
    return Packed(jnp.concatenate([leaf.reshape(-1) for leaf in small]), others, tuple(leaf.shape for leaf in small))


def _split(packed: Packed) -> Any:
    sizes = [int(np.prod(shape)) for shape in packed.shapes]
    parts = (part.reshape(shape) for part, shape in zip(lax.split(packed.vector, sizes), packed.shapes, strict=True))
    return jax.tree.map(
        lambda leaf: next(parts) if leaf is None else leaf, packed.others, is_leaf=lambda leaf: leaf is None
    )
