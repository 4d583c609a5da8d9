"""Fits the texture reader: codebooks from descriptors, then the ridge, or two of them for patterns of several sets."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from hep2jax.data.sets.along import broad
from hep2jax.fisher import encoding, ridge
from hep2jax.fisher.descriptors import DESCRIPTORS, Descriptor
from hep2jax.fisher.encoding import Codebook
from hep2jax.fisher.ridge import Cells, Parameters

REDUCED = {"sift": 40, "rings": 32}
"""Components of a descriptor that are kept."""
_POINTS = 150_000
_SHARPNESS = np.geomspace(1.0, 64.0, 25)
_NARROW = 0.1  # the ridge that parts narrow patterns is weaker by this factor: it has few cells
_SCALARS = 0.5  # weight of each of their two kernels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """As the keys of the section `fisher` of the configuration."""

    strength: float
    """Of the ridge."""
    class_power: float
    rings: float = 0.0
    shape: float = 0.0

    @property
    def descriptors(self) -> list[Descriptor]:
        """The descriptors that are used."""
        return [descriptor for descriptor in DESCRIPTORS if descriptor.name == "sift" or self.rings]

    def kernel(self, strength: float) -> ridge.Settings:
        """The kernel with a ridge of this strength."""
        vectors = {"sift": 1.0, "rings": self.rings} if self.rings else {"sift": 1.0}
        return ridge.Settings(
            linear=vectors | {"scalars": _SCALARS},
            gaussian={"scalars": _SCALARS, "shape": self.shape},
            ridge=strength,
            class_power=self.class_power,
        )


def sample(
    vectors: Float[np.ndarray, "cell point component"],
    depth: Float[np.ndarray, "cell point"],
    num_cells: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "descriptor component"]:
    """Some descriptors of each cell, drawn from the regions that are pooled; about 150,000 from `num_cells` cells."""
    least = min(low for low, _ in encoding.REGIONS)
    drawn = []
    for cell, depths in zip(vectors, depth, strict=True):
        inside = np.flatnonzero(depths > least)
        drawn.append(cell[rng.permutation(inside)[: _POINTS // num_cells + 1]])
    return np.concatenate(drawn)


def fit_codebook(
    descriptor: Descriptor, vectors: Float[np.ndarray, "row component"], gaussians: int, rng: np.random.Generator
) -> Codebook:
    """The projection and the mixture of a sample of descriptors, one random copy of each in the mixture."""
    size = min(REDUCED[descriptor.name], vectors.shape[1])
    mean, projection = encoding.fit_projection(vectors, descriptor.symmetries, size)
    copies = descriptor.symmetries[rng.integers(len(descriptor.symmetries), size=len(vectors))]
    points = (np.take_along_axis(vectors, copies, axis=1) - mean) @ projection
    weights, centres, variances = encoding.fit_mixture(points.astype(np.float32), gaussians, rng)
    return Codebook(mean=mean, projection=projection, weights=weights, centres=centres, variances=variances)


def some_of_each(names: Sequence[str], limit: int, rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    """At most `limit` random rows of each name, ascending; 0: all rows."""
    order = rng.permutation(len(names))
    if not limit:
        return np.sort(order)
    left = dict.fromkeys(names, limit)
    chosen = []
    for row in map(int, order):
        name = names[row]
        if left[name]:
            left[name] -= 1
            chosen.append(row)
    return np.sort(np.array(chosen, np.int64))


def fit_reader(
    own: Cells, classes: Sequence[str], settings: Settings, along: Cells | None = None, others: Sequence[str] = ()
) -> Parameters:
    """The parameters of `reader.probabilities` without the codebooks.

    With the cells of another set along, broad patterns are learned from both sets, and the patterns that a broad one
    comprises are parted by a second ridge on the set's own cells of broad patterns with several members.

    Args:
        own: the cells of the set that will be read.
        classes: its patterns.
        settings: the kernel and the ridge.
        along: cells of another set.
        others: the patterns of that set.
    """
    if along is None:
        members = np.eye(len(classes), dtype=np.float32)
        return {"broad": _fit_one([own], len(classes), settings.kernel(settings.strength)), "members": members}
    names = list(dict.fromkeys(map(broad, [*classes, *others])))
    of_own, of_others = ([names.index(broad(name)) for name in patterns] for patterns in (classes, others))
    both = [_renamed(own, of_own), _renamed(along, of_others)]
    members = np.array([[float(names[k] == broad(name)) for name in classes] for k in range(len(names))], np.float32)
    parameters = {"broad": _fit_one(both, len(names), settings.kernel(settings.strength)), "members": members}
    shared = np.flatnonzero(members.sum(axis=1)[np.asarray(of_own)[own.patterns]] > 1)
    if len(shared):
        kernel = settings.kernel(settings.strength * _NARROW)
        parameters["narrow"] = _fit_one([own.chosen(shared)], len(classes), kernel)
    return parameters


def _renamed(cells: Cells, patterns: Sequence[int]) -> Cells:
    return dataclasses.replace(cells, patterns=np.asarray(patterns)[cells.patterns])


def _fit_one(sets: Sequence[Cells], num_patterns: int, settings: ridge.Settings) -> Parameters:
    """A ridge, and how sharply its scores tell probabilities: best for specimens that were not learned from."""
    parameters, held_out = ridge.fit(sets, num_patterns, settings)
    return parameters | {"sharpness": np.float32(sharpness(held_out, sets[0].patterns))}


def sharpness(scores: Float[np.ndarray, "cell pattern"], patterns: Int[np.ndarray, " cell"]) -> float:
    """The factor before the softmax that gives the true patterns the highest mean log-probability over patterns."""
    weights = ridge.cell_weights(patterns, 1.0)

    def loss(factor: float) -> float:
        logits = factor * (scores - scores.max(axis=1, keepdims=True))
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -float((weights * logs[np.arange(len(patterns)), patterns]).mean())

    return min(_SHARPNESS.tolist(), key=loss)
