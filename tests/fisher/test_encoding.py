"""Codebooks and Fisher vectors."""

import jax
import numpy as np
import pytest

from hep2jax.fisher import encoding, fitting
from hep2jax.fisher.descriptors import DESCRIPTORS
from hep2jax.fisher.encoding import Codebook

RINGS = DESCRIPTORS[1]


def _codebook(rng: np.random.Generator, components: int = 32, reduced: int = 5, gaussians: int = 4) -> Codebook:
    return Codebook(
        mean=rng.normal(size=components).astype(np.float32),
        projection=rng.normal(size=(components, reduced)).astype(np.float32) / 4,
        weights=rng.dirichlet(np.ones(gaussians)).astype(np.float32),
        centres=rng.normal(size=(gaussians, reduced)).astype(np.float32),
        variances=rng.uniform(0.5, 2, (gaussians, reduced)).astype(np.float32),
    )


def _directly(book: Codebook, descriptors: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The formula of Perronnin, Sanchez and Mensink in float64, point by point."""
    parts = []
    for low, high in encoding.REGIONS:
        chosen = descriptors[(depth > low) & (depth <= high)].astype(np.float64)
        copies = [point[order] for point in chosen for order in RINGS.symmetries]
        by_centre, by_deviation = np.zeros(book.centres.shape), np.zeros(book.centres.shape)
        for copy in copies:
            x = (copy - book.mean) @ book.projection
            standard = (x - book.centres) / np.sqrt(book.variances)
            density = book.weights * np.exp(-0.5 * (standard**2).sum(1)) / np.sqrt(book.variances.prod(1))
            share = (density / density.sum())[:, None]
            by_centre += share * standard / np.sqrt(book.weights)[:, None] / len(copies)
            by_deviation += share * (standard**2 - 1) / np.sqrt(2 * book.weights)[:, None] / len(copies)
        vector = np.stack([by_centre, by_deviation]).ravel()
        vector = np.sign(vector) * np.sqrt(np.abs(vector))
        parts.append(vector / (np.linalg.norm(vector) or 1))
    return np.concatenate(parts)


def test_fisher_vector_against_the_formula():
    rng = np.random.default_rng(0)
    book, points = _codebook(rng), rng.normal(size=(30, 32)).astype(np.float32)
    depth = rng.uniform(-0.6, 0.4, 30).astype(np.float32)  # no point in the first region
    encode = jax.jit(lambda points, depth: encoding.fisher_vector(book, RINGS.symmetries, points, depth))
    vector = np.asarray(encode(points, depth))
    np.testing.assert_allclose(vector, _directly(book, points, depth), atol=2e-4)
    assert not vector[: len(vector) // 3].any()
    turned = encode(points[:, RINGS.symmetries[5]], depth)
    np.testing.assert_allclose(turned, vector, atol=1e-4)


def test_the_projection_whitens_all_copies():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4000, 32)) * np.linspace(0.5, 2, 32)
    mean, projection = encoding.fit_projection(points, RINGS.symmetries, 32)
    copies = np.concatenate([points[:, order] for order in RINGS.symmetries])
    seen = (copies - mean) @ projection
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(32), atol=1e-3)


def test_the_mixture_finds_two_clouds():
    rng = np.random.default_rng(2)
    cloud = [rng.normal(-3, 1, (600, 2)), rng.normal(3, 0.5, (200, 2))]
    weights, centres, variances = encoding.fit_mixture(np.concatenate(cloud).astype(np.float32), 2, rng)
    order = centres[:, 0].argsort()
    np.testing.assert_allclose(weights[order], [0.75, 0.25], atol=0.02)
    np.testing.assert_allclose(centres[order].mean(axis=1), [-3, 3], atol=0.15)
    np.testing.assert_allclose(variances[order].mean(axis=1), [1, 0.25], atol=0.15)


def test_descriptors_are_sampled_from_the_pooled_regions():
    rng = np.random.default_rng(3)
    vectors = np.arange(2 * 50, dtype=np.float32).reshape(2, 50, 1)
    depth = np.tile(np.linspace(-1, 1, 50), (2, 1))
    drawn = fitting.sample(vectors, depth, 10**6, rng)
    assert drawn.shape == (2, 1)  # at least one a cell
    assert (depth.ravel()[drawn.ravel().astype(int)] > -0.4).all()


def test_some_rows_of_each_name():
    rng = np.random.default_rng(4)
    names = list("aaaaabbc")
    chosen = fitting.some_of_each(names, 2, rng)
    assert [names[row] for row in chosen] == list("aabbc")
    assert fitting.some_of_each(names, 0, rng).tolist() == list(range(8))


def test_a_codebook_of_fewer_points_than_gaussians():
    rng = np.random.default_rng(5)
    book = fitting.fit_codebook(RINGS, rng.normal(size=(3, 32)).astype(np.float32), 48, rng)
    assert len(book.weights) == 3
    assert np.isfinite(book.centres).all()
    assert book.weights.sum() == pytest.approx(1, abs=1e-5)
