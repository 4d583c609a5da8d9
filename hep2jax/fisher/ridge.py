"""Kernel ridge regression on blocks of features: linear in Fisher vectors and scalars, Gaussian in scalars and shape.

Cells of several data sets can be learned from together. Each set is centred and scaled by itself, because their
microscopes and stains differ; and each has the same weight in all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

LIMIT = 5.0
"""Standardised scalars are clipped at this many standard deviations."""

Features = Mapping[str, np.ndarray]
"""Real features of cells by block, [cells, features] each."""
Parameters = dict[str, Any]
"""Arrays, nested in dictionaries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The kernel and the ridge; a Gaussian kernel with weight 0 is left out."""

    linear: Mapping[str, float]
    """Weight of the linear kernel of each block; each kernel is centred and has a mean diagonal of 1 before."""
    gaussian: Mapping[str, float]
    """The same of the Gaussian kernel of each block of scalars, whose width is their median distance."""
    ridge: float
    class_power: float
    """Cells of a class weigh as (their number)^-class_power."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of one data set that are learned from."""

    features: Features
    patterns: Int[np.ndarray, " cell"]
    specimens: list[str]

    def __len__(self) -> int:
        return len(self.patterns)

    def chosen(self, rows: np.ndarray) -> "Cells":
        """Only these cells."""
        features = {name: block[rows] for name, block in self.features.items()}
        return Cells(features=features, patterns=self.patterns[rows], specimens=[self.specimens[i] for i in rows])


def fit(sets: Sequence[Cells], num_patterns: int, settings: Settings) -> tuple[Parameters, np.ndarray]:
    """Learn the patterns of cells; the first set is the one whose cells will be read.

    Args:
        sets: the cells, with pattern indices of one list of `num_patterns` patterns.
        num_patterns: number of outputs.
        settings: the kernel.

    Returns:
        Parameters for `scores`, and the scores of the first set's cells as if their specimen had not been learned from,
        float32 [cells, patterns] (exactly, for the kernel and the weights of this fit).
    """
    bounds = np.cumsum([0, *map(len, sets)])
    rows = [slice(first, end) for first, end in zip(bounds[:-1], bounds[1:], strict=True)]
    standard = [{name: _statistics(block) for name, block in _scalars(cells.features).items()} for cells in sets]
    linear = np.concatenate([_linear_features(*pair, settings) for pair in zip(sets, standard, strict=True)])
    kernel, gaussians = np.asarray(_products(linear)) + 1.0, _gaussians(sets, standard, settings)
    plain = {name: np.asarray(gaussian(**similar, second=similar["first"])) for name, similar in gaussians.items()}
    for name, similarities in plain.items():
        kernel += _centred_by_set(similarities, rows, settings.gaussian[name])
    targets = np.eye(num_patterns, dtype=np.float32)[np.concatenate([cells.patterns for cells in sets])]
    weights = np.concatenate([cell_weights(cells.patterns, settings.class_power) for cells in sets])
    kernel[np.diag_indices(len(kernel))] += settings.ridge / weights
    inverse = np.asarray(_inverse(kernel))
    alpha = inverse @ targets
    held_out = left_out_scores(inverse, alpha, targets, sets[0].specimens)
    parameters = _collapse(sets[0], linear.T @ alpha, alpha.sum(axis=0), standard[0], settings)
    for name, similar in gaussians.items():
        coefficients, shift = _gaussian_weights(plain[name], alpha, rows, settings.gaussian[name])
        parameters["gaussian"][name] = {"points": similar["first"], "width": similar["width"], "weights": coefficients}
        parameters["offset"] += shift
    return parameters, held_out


def cell_weights(patterns: Int[np.ndarray, " cell"], power: float) -> Float[np.ndarray, " cell"]:
    """Weights of the cells of a set with mean 1, by the number of cells of their pattern."""
    counts = np.bincount(patterns)[patterns].astype(np.float64)
    weights = counts**-power
    return weights / weights.mean()


def left_out_scores(
    inverse: Float[np.ndarray, "cell cell"], alpha: np.ndarray, targets: np.ndarray, specimens: Sequence[str]
) -> Float32[np.ndarray, "row pattern"]:
    """What ridge regression without a specimen's cells would say of them, for the first len(specimens) cells.

    In closed form: the residuals are the coefficients, multiplied by the inverse of the specimen's block of the
    inverse of the regularised kernel.
    """
    names, scores = np.asarray(specimens), np.empty((len(specimens), targets.shape[1]), np.float32)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        block = np.asarray(inverse[np.ix_(rows, rows)], np.float64)
        scores[rows] = targets[rows] - np.linalg.solve(block, alpha[rows])
    return scores


def scores(parameters: Parameters, features: Mapping[str, Array]) -> Float32[Array, "cell pattern"]:
    """Regression scores of cells, about 1 for their pattern and 0 for others."""
    total = parameters["offset"]
    standard = {name: _standardise(block, **parameters["standard"][name]) for name, block in _scalars(features).items()}
    for name, weights in parameters["linear"].items():
        total = total + standard.get(name, features[name]).astype(jnp.float32) @ weights
    for name, support in parameters["gaussian"].items():
        similar = gaussian(standard[name], support["points"], support["width"])
        total = total + similar @ support["weights"]
    return total


@jax.jit
def gaussian(
    first: Float32[Array, "row feature"], second: Float32[Array, "column feature"], width: Any
) -> Float32[Array, "row column"]:
    """exp(-squared distance / width)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2 * first @ second.T
    return jnp.exp(-jnp.maximum(squares, 0.0) / width)


@jax.jit
def _products(rows: Float32[Array, "cell feature"]) -> Float32[Array, "cell cell"]:
    return rows @ rows.T


@jax.jit
def _inverse(matrix: Float32[Array, "cell cell"]) -> Float32[Array, "cell cell"]:
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(matrix), dtype=matrix.dtype))


def _scalars(features: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks that are standardised: those of few numbers, unlike Fisher vectors."""
    return {name: features[name] for name in ("scalars", "shape") if name in features}


def _statistics(block: np.ndarray) -> Parameters:
    mean, deviation = block.mean(axis=0, dtype=np.float64), block.std(axis=0, dtype=np.float64) + 1e-6
    return {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}


def _standardise(block: Any, mean: Any, deviation: Any) -> Any:
    return ((block - mean) / deviation).clip(-LIMIT, LIMIT)


def _block(cells: Cells, name: str, standard: dict[str, Parameters]) -> Float32[np.ndarray, "cell feature"]:
    block = cells.features[name].astype(np.float32)
    return _standardise(block, **standard[name]) if name in standard else block


def _linear_features(cells: Cells, standard: dict[str, Parameters], settings: Settings) -> np.ndarray:
    """The features whose products are the linear part of the kernel."""
    blocks = []
    for name, weight in settings.linear.items():
        block = _block(cells, name, standard)
        mean, scale = _mean_and_scale(block)
        blocks.append((block - mean) * (weight**0.5 / scale))
    return np.concatenate(blocks, axis=1)


def _mean_and_scale(block: np.ndarray) -> tuple[Float32[np.ndarray, " feature"], float]:
    """The mean of the features, and the root of the mean square of their distances from it."""
    mean = block.mean(axis=0)
    return mean, float(np.sqrt(((block - mean) ** 2).sum(axis=1).mean())) + 1e-9


def _gaussians(
    sets: Sequence[Cells], standard: list[dict[str, Parameters]], settings: Settings
) -> dict[str, dict[str, Any]]:
    """The points of all cells and the width of each Gaussian kernel: the median squared distance of the first set."""
    found = {}
    for name, weight in settings.gaussian.items():
        if weight:
            blocks = [_block(cells, name, statistics) for cells, statistics in zip(sets, standard, strict=True)]
            some = blocks[0][:: max(1, len(blocks[0]) // 1000)].astype(np.float64)
            squares = (some**2).sum(axis=1)
            distances = np.maximum(squares[:, None] + squares[None] - 2 * some @ some.T, 0.0)
            width = np.float32(max(float(np.median(distances)), 1e-3))
            found[name] = {"first": np.concatenate(blocks), "width": width}
    return found


def _centred_by_set(kernel: np.ndarray, rows: Sequence[slice], weight: float) -> np.ndarray:
    """The kernel of features that are centred and scaled within each set, times a weight."""
    kernel, factor = kernel.copy(), np.empty(len(kernel), np.float32)
    for these in rows:
        kernel[these] -= kernel[these].mean(axis=0, keepdims=True)
        kernel[:, these] -= kernel[:, these].mean(axis=1, keepdims=True)
        factor[these] = 1 / np.sqrt(np.diag(kernel)[these].mean())
    return weight * kernel * factor[:, None] * factor[None, :]


def _collapse(
    own: Cells, combined: np.ndarray, total: np.ndarray, standard: dict[str, Parameters], settings: Settings
) -> Parameters:
    """The linear kernels as weights of features, so that the cells that were learned from are not needed any more."""
    weights, offset, first = {}, total.copy(), 0
    for name, weight in settings.linear.items():
        mean, scale = _mean_and_scale(_block(own, name, standard))
        weights[name] = combined[first : first + len(mean)] * np.float32(weight**0.5 / scale)
        offset, first = offset - mean @ weights[name], first + len(mean)
    return {"linear": weights, "gaussian": {}, "offset": offset, "standard": standard}


def _gaussian_weights(
    similar: np.ndarray, alpha: np.ndarray, rows: Sequence[slice], weight: float
) -> tuple[Float32[np.ndarray, "cell pattern"], Float32[np.ndarray, " pattern"]]:
    """Weights of a new cell's similarities, and a constant, that equal the kernel of `_centred_by_set` for it."""
    parts, factors = [], []
    for these in rows:
        own = similar[these, these]
        factors.append(1 / np.sqrt(np.diag(own).mean() - own.mean()))
        parts.append((alpha[these] - alpha[these].mean(axis=0)) * factors[-1])
    coefficients = (weight * factors[0] * np.concatenate(parts)).astype(np.float32)
    return coefficients, -similar[rows[0]].mean(axis=0) @ coefficients
