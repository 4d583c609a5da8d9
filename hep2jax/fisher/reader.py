"""The texture reader as a pure function of its parameters: from frames of cells to the probability of each pattern."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8

from hep2jax.data.sets import framing
from hep2jax.fisher import channels, ridge
from hep2jax.fisher.descriptors import DESCRIPTORS, Descriptor, grid
from hep2jax.fisher.encoding import Codebook, fisher_vector
from hep2jax.fisher.scalars import scalars, shape

_LEAST = 1e-30
Frames = UInt8[Array, "cell side side 2"]
"""Grey levels and depth, see `hep2jax.data.sets.framing`."""


def describe(frames: Frames, descriptor: Descriptor) -> tuple[Float32[Array, "cell point component"], Array]:
    """The descriptors of cells, and the depth of their points, float32 [cells, points]."""

    def one(frame: UInt8[Array, "side side 2"]) -> tuple[Array, Array]:
        image, mask = frame[..., 0].astype(jnp.float32), framing.inside(frame[..., 1])
        return _describe(image, mask, channels.depth(mask), descriptor)

    return _over_cells(one, frames)


def features(codebooks: Mapping[str, Codebook], frames: Frames) -> dict[str, Float32[Array, "cell feature"]]:
    """The blocks of features: a Fisher vector for each descriptor with a codebook, `scalars` and `shape`."""

    def one(frame: UInt8[Array, "side side 2"]) -> dict[str, Array]:
        image, mask = frame[..., 0].astype(jnp.float32), framing.inside(frame[..., 1])
        depth = channels.depth(mask)
        blocks = {"scalars": scalars(image, mask, depth), "shape": shape(mask)}
        for descriptor in (d for d in DESCRIPTORS if d.name in codebooks):
            vectors = _describe(image, mask, depth, descriptor)
            blocks[descriptor.name] = fisher_vector(codebooks[descriptor.name], descriptor.symmetries, *vectors)
        return blocks

    return _over_cells(one, frames)


def _describe(image: Array, mask: Array, depth: Array, descriptor: Descriptor) -> tuple[Array, Array]:
    channel = {"net": channels.net, "mad": channels.mad}[descriptor.channel](image, mask)
    points = grid(len(image))
    return descriptor(channel), depth[points][:, points].ravel()


def _over_cells(function: Callable[[Array], Any], frames: Frames) -> Any:
    """The function of each cell: all at once on accelerators, one after the other on CPUs.

    The arrays of one cell fit into a CPU's cache, where this takes a third of the time.
    """
    return jax.lax.map(function, frames, batch_size=None if jax.default_backend() == "cpu" else len(frames))


def probabilities(parameters: dict[str, Any], blocks: dict[str, Array]) -> Float32[Array, "cell pattern"]:
    """The probability of each pattern, from `features`.

    Broad patterns are told apart first; then, within a broad pattern, the patterns that it comprises. `members` says
    which those are, [broad, patterns], 0 or 1; with a broad pattern for each pattern the second step has no effect.
    """
    members = parameters["members"]
    broad = _softmax(parameters["broad"], blocks)
    narrow = _softmax(parameters["narrow"], blocks) if "narrow" in parameters else jnp.ones_like(members[:1])
    shares = members[None] * narrow[:, None, :]
    within = shares / jnp.maximum(shares.sum(axis=2, keepdims=True), _LEAST)
    joint = jnp.einsum("cb,cbp->cp", broad, within)
    return joint / jnp.maximum(joint.sum(axis=1, keepdims=True), _LEAST)


def _softmax(parameters: ridge.Parameters, blocks: dict[str, Array]) -> Float32[Array, "cell pattern"]:
    return jax.nn.softmax(parameters["sharpness"] * ridge.scores(parameters, blocks), axis=1)
