"""Kernel ridge regression against closed forms in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from hep2jax.fisher import fitting, ridge
from hep2jax.fisher.ridge import Cells

SETTINGS = ridge.Settings(
    linear={"sift": 1.0, "rings": 0.5, "scalars": 0.5},
    gaussian={"scalars": 0.5, "shape": 0.2},
    ridge=2.0,
    class_power=0.7,
)


def _cells(rng: np.random.Generator, count: int = 40, specimens: int = 6, shift: float = 0.0) -> Cells:
    specimen = np.arange(count) % specimens
    patterns = np.array([0, 0, 0, 1, 1, 2])[specimen % 6]
    sizes = {"sift": 12, "rings": 9, "scalars": 5, "shape": 3}
    features = {name: rng.normal(shift, 1, (count, size)).astype(np.float32) for name, size in sizes.items()}
    features["sift"][:, :3] += 2 * np.eye(3)[patterns]
    return Cells(features=features, patterns=patterns, specimens=[f"s{i}" for i in specimen])


def _standard(block: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.clip((block - of.mean(0)) / (of.std(0) + 1e-6), -5, 5)


def _kernel(sets: list[Cells], rows: list[np.ndarray], new: list[Cells]) -> np.ndarray:
    """The kernel of `new` cells (one group for each set) with the training cells `rows` of each set, in float64.

    Feature maps of the Gaussian kernels are made explicit by the eigenvectors of their matrix over all cells, so that
    centring and scaling by set are those of plain features.
    """
    total = 1.0
    for name, weight in SETTINGS.linear.items():
        total = total + weight * _products(
            [(new[k].features[name], sets[k].features[name]) for k in range(len(sets))], name, sets
        )
    for name, weight in SETTINGS.gaussian.items():
        total = total + weight * _explicit(name, sets, new)
    del rows
    return total


def _products(pairs, name, sets):
    def ready(block, of):
        block, of = block.astype(np.float64), of.astype(np.float64)
        if name == "scalars":
            block, of = _standard(block, of), _standard(of, of)
        return (block - of.mean(0)) / np.sqrt(((of - of.mean(0)) ** 2).sum(1).mean())

    left = np.concatenate([ready(block, of) for block, of in pairs])
    right = np.concatenate([ready(of, of) for _, of in pairs])
    return left @ right.T


def _explicit(name, sets, new):
    train = [_standard(c.features[name], c.features[name]).astype(np.float64) for c in sets]
    other = [_standard(n.features[name], c.features[name]).astype(np.float64) for n, c in zip(new, sets, strict=True)]
    first = train[0]
    width = np.median(((first[:, None] - first[None]) ** 2).sum(2))
    points = np.concatenate(train + other)
    kernel = np.exp(-((points[:, None] - points[None]) ** 2).sum(2) / width)
    values, axes = np.linalg.eigh(kernel)
    maps = axes * np.sqrt(np.maximum(values, 0))
    bounds = np.cumsum([0] + [len(part) for part in train + other])
    parts = [maps[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    count, left, right = len(sets), [], []
    for k in range(count):
        of = parts[k]
        scale = np.sqrt(((of - of.mean(0)) ** 2).sum(1).mean())
        right.append((of - of.mean(0)) / scale)
        left.append((parts[count + k] - of.mean(0)) / scale)
    return np.concatenate(left) @ np.concatenate(right).T


@pytest.mark.parametrize("num_sets", [1, 2])
def test_scores_against_the_closed_form(num_sets):
    rng = np.random.default_rng(0)
    sets = [_cells(rng), _cells(rng, 30, shift=3.0)][:num_sets]
    new = [_cells(rng, 10), _cells(rng, 1, shift=3.0)][:num_sets]
    parameters, _ = ridge.fit(sets, 3, SETTINGS)
    scores = np.asarray(jax.jit(ridge.scores)(parameters, new[0].features))

    matrix = _kernel(sets, [], sets)
    weights = np.concatenate([ridge.cell_weights(c.patterns, 0.7) for c in sets])
    targets = np.eye(3)[np.concatenate([c.patterns for c in sets])]
    alpha = np.linalg.solve(matrix + np.diag(SETTINGS.ridge / weights), targets)
    expected = _kernel(sets, [], new)[:10] @ alpha
    np.testing.assert_allclose(scores, expected, atol=3e-4)


def test_left_out_specimens_in_closed_form_are_those_of_fits_without_them():
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(12, 20))
    kernel = kernel @ kernel.T / 20 + 1.0
    targets, names = np.eye(2)[np.arange(12) % 2], [f"s{i % 4}" for i in range(12)]
    inverse = np.linalg.inv(kernel + 0.5 * np.eye(12))
    found = ridge.left_out_scores(inverse, inverse @ targets, targets, names)
    for name in set(names):
        out = np.array([n == name for n in names])
        alpha = np.linalg.solve(kernel[~out][:, ~out] + 0.5 * np.eye((~out).sum()), targets[~out])
        np.testing.assert_allclose(found[out], kernel[out][:, ~out] @ alpha, atol=1e-5)


def test_the_weights_of_rare_patterns():
    weights = ridge.cell_weights(np.array([0, 0, 0, 0, 1]), 1.0)
    assert weights.tolist() == pytest.approx([0.625] * 4 + [2.5])


def test_sharpness_of_good_and_of_useless_scores():
    patterns = np.arange(30) % 3
    rng = np.random.default_rng(2)
    assert fitting.sharpness(np.eye(3)[patterns], patterns) > 30
    assert fitting.sharpness(rng.normal(size=(30, 3)), patterns) == pytest.approx(1)


def test_patterns_of_two_sets_and_their_members():
    """Fine and coarse speckled are one pattern beside the other set's speckled; a ridge of their own parts them."""
    rng = np.random.default_rng(3)
    own, along = _cells(rng), _cells(rng, 30)
    settings = fitting.Settings(strength=1.0, class_power=0.7, shape=0.1)
    classes, others = ("nucleolar", "fine_speckled", "coarse_speckled"), ("nucleolar", "speckled", "golgi")
    parameters = fitting.fit_reader(own, classes, settings, along, others)
    assert parameters["members"].tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert parameters["broad"]["offset"].shape == (3,)
    assert parameters["narrow"]["gaussian"]["scalars"]["points"].shape[0] == int((own.patterns > 0).sum())
    alone = fitting.fit_reader(own, classes, settings)
    assert "narrow" not in alone
    assert alone["members"].tolist() == np.eye(3).tolist()


def test_choosing_cells_keeps_their_columns_together():
    cells = _cells(np.random.default_rng(4))
    some = cells.chosen(np.array([3, 5]))
    assert (len(some), some.specimens) == (2, [cells.specimens[3], cells.specimens[5]])
    np.testing.assert_array_equal(some.features["shape"], cells.features["shape"][[3, 5]])
    assert dataclasses.replace(some).patterns.tolist() == cells.patterns[[3, 5]].tolist()
