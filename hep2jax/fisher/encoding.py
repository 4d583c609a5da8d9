"""Fisher vectors: how the descriptors of a cell differ from a mixture of Gaussians that was fitted without labels.

Perronnin, Sanchez, Mensink, ECCV 2010. All eight turned and mirrored copies of a cell are counted, so the vector does
not depend on how the cell lies.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

REGIONS = ((0.45, np.inf), (0.0, 0.45), (-0.4, 0.0))
"""Depths in the cell, in radii, over which descriptors are pooled: its inside, its border, and a ring outside it, where
the Golgi apparatus lies."""
_LEAST_VARIANCE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook:
    """A whitening projection of descriptors, and a mixture of Gaussians with diagonal covariances in its space."""

    mean: Float32[np.ndarray | Array, " component"]
    projection: Float32[np.ndarray | Array, "component reduced"]
    weights: Float32[np.ndarray | Array, " gaussian"]
    centres: Float32[np.ndarray | Array, "gaussian reduced"]
    variances: Float32[np.ndarray | Array, "gaussian reduced"]


jax.tree_util.register_dataclass(Codebook)


def fit_projection(
    descriptors: Float[np.ndarray, "descriptor component"], symmetries: Int[np.ndarray, "8 component"], size: int
) -> tuple[Float32[np.ndarray, " component"], Float32[np.ndarray, "component reduced"]]:
    """Mean and whitening projection on the `size` main axes of the descriptors and of all their symmetric copies."""
    plain = descriptors.astype(np.float64)
    mean = plain.mean(axis=0)[symmetries].mean(axis=0)
    covariance = (plain - mean).T @ (plain - mean) / len(plain)
    covariance = np.mean([covariance[np.ix_(order, order)] for order in symmetries], axis=0)
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1][:size], axes[:, ::-1][:, :size]
    return mean.astype(np.float32), (axes / np.sqrt(values + 1e-8)).astype(np.float32)


def fit_mixture(
    points: Float32[np.ndarray, "point reduced"], size: int, rng: np.random.Generator, *, rounds: int = 40
) -> tuple[Any, Any, Any]:
    """Weights, centres and variances of `size` Gaussians, by expectation-maximisation from random points."""
    size = min(size, len(points))
    centres = jnp.asarray(points[rng.choice(len(points), size, replace=False)])
    state: Any = (jnp.full((size,), 1 / size), centres, jnp.ones_like(centres))
    update = jax.jit(_update)
    for _ in range(rounds):
        state = update(state, points)
    weights, centres, variances = map(np.asarray, state)
    return weights, centres, variances


def _update(state: tuple, points: Float32[Array, "point reduced"]) -> tuple:
    weights, centres, variances = state
    shares = posteriors(weights, centres, variances, points)
    mass = shares.sum(axis=0) + 1e-6
    centres = shares.T @ points / mass[:, None]
    variances = shares.T @ points**2 / mass[:, None] - centres**2
    return mass / mass.sum(), centres, jnp.maximum(variances, _LEAST_VARIANCE)


def posteriors(
    weights: Any,
    centres: Any,
    variances: Any,
    points: Float32[Array, "point reduced"],
) -> Float32[Array, "point gaussian"]:
    """The probability of each Gaussian for each point; the first three are those of a `Codebook`."""
    constant = jnp.log(weights) - 0.5 * (jnp.log(variances) + centres**2 / variances).sum(axis=1)
    return jax.nn.softmax(constant - 0.5 * points**2 @ (1 / variances).T + points @ (centres / variances).T, axis=1)


def fisher_vector(
    codebook: Codebook,
    symmetries: Int[np.ndarray, "8 component"],
    descriptors: Float32[Array, "point component"],
    depth: Float32[Array, " point"],
) -> Float32[Array, " feature"]:
    """The Fisher vector of one cell: the gradients by centres and by deviations, signed square roots, unit length.

    Each region is pooled and normalised by itself; a region without a point gives zeros.

    Returns:
        Features ordered by region, then centres before deviations, Gaussian, reduced component.
    """
    regions = jnp.stack([(depth > low) & (depth <= high) for low, high in REGIONS], axis=1).astype(jnp.float32)
    counts = jnp.maximum(len(symmetries) * regions.sum(axis=0), 1.0)[:, None, None]
    sums = _statistics(codebook, _projected(codebook, symmetries, descriptors), regions)
    mass, first, second = jnp.split(sums / counts, [1, 1 + codebook.centres.shape[1]], axis=-1)
    # The sums are of points themselves; their moments about the centres follow.
    centres, deviations = codebook.centres, jnp.sqrt(codebook.variances)
    by_centre = (first - mass * centres) / deviations
    by_deviation = (second - 2 * first * centres + mass * centres**2) / codebook.variances - mass
    scale = jnp.sqrt(codebook.weights)[:, None]
    both = jnp.stack([by_centre / scale, by_deviation / (jnp.sqrt(2.0) * scale)], axis=1)
    rooted = (jnp.sign(both) * jnp.sqrt(jnp.abs(both))).reshape(len(REGIONS), -1)
    return (rooted / (jnp.linalg.norm(rooted, axis=1, keepdims=True) + 1e-9)).ravel()


def _projected(
    codebook: Codebook, symmetries: Int[np.ndarray, "8 component"], descriptors: Float32[Array, "point component"]
) -> Float32[Array, "point_and_copy reduced"]:
    """The eight copies of each point in the space of the mixture, by one product with the permuted projections."""
    projections = jnp.concatenate([codebook.projection[np.argsort(order)] for order in symmetries], axis=1)
    points = (descriptors @ projections).reshape(-1, codebook.projection.shape[1])
    return points - codebook.mean @ codebook.projection


def _statistics(
    codebook: Codebook, points: Float32[Array, "point_and_copy reduced"], regions: Float32[Array, "point region"]
) -> Float32[Array, "region gaussian moment"]:
    """Sums over the points of a region, weighted by the probabilities of each Gaussian: of 1, the point, its square."""
    shares = posteriors(codebook.weights, codebook.centres, codebook.variances, points)
    copies = len(points) // len(regions)
    by_region = (shares[:, None, :] * jnp.repeat(regions, copies, axis=0)[:, :, None]).reshape(len(points), -1)
    moments = jnp.concatenate([jnp.ones_like(points[:, :1]), points, points**2], axis=1)
    return (by_region.T @ moments).reshape(regions.shape[1], shares.shape[1], -1)
