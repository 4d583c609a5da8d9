"""Classifiers of single cells with a common interface: they return one score per pattern for each cell.

* `FeatureReader`: features of a network → one-against-all SVMs → k nearest neighbours (Cascio, Taormina, Raso 2019).
* `NetworkReader`: the probabilities of a cell network.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from hep2jax.errors import UsageError
from hep2jax.specimens.features import Extractor
from hep2jax.tasks import Parameters
from hep2jax.tasks.cells import CellEvaluator, Scores


@runtime_checkable
class CellReader(Protocol):
    """Classifies prepared cells."""

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of the cells, in input order; images and tone curves are prepared by `cells.preprocess`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkReader:
    """A cell network of this project (`CellEvaluator` and its parameters); the scores are softmax probabilities."""

    evaluator: CellEvaluator
    parameters: Parameters

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of the cells, in input order."""
        return self.evaluator.predict(self.parameters, images, tone_curve)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The hyperparameters that the inner cross-validation compares; in a tie, it selects the first."""

    costs: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """C of the SVMs. The values are small because standardised features are long vectors."""
    neighbours: tuple[int, ...] = (15, 9, 5, 3, 1)
    folds: int = 5
    """Maximum number of folds; the number is also limited by the specimens of the rarest pattern, but is at least 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SvmKnn:
    """One-against-all SVMs on the features of one layer, then k nearest neighbours on the vectors of SVM scores.

    Cascio, Taormina, Raso, Appl. Sci. 9(8):1618 (2019). From the source: features of a pre-trained network, six SVMs
    (hence one-against-all, for six patterns) and a k-nearest-neighbours classifier; "layers ... and system parameters
    were evaluated". The body of the paper was not available, so the following is our interpretation:
    * The SVMs are linear (squared hinge loss), the features are standardised over the training cells, and all
      patterns have equal weight.
    * The neighbours are the out-of-fold scores of the training cells, because an SVM gives a cell that it was trained
      on a score nearer to +-1 than it gives a new cell. A pattern that is absent from the training part of a fold gets
      the score -1. If all specimens of a pattern are in one fold, no other fold contains the pattern, and its cells
      are scored by the SVMs that are fitted to all cells.
    * Neighbours vote with the inverse of their distance.

    Attributes:
        layer, cost, neighbours: hyperparameters that the inner cross-validation selected.
        inner_mca: mean class accuracy of the inner cross-validation over held-out specimens, 0 to 1. The
            hyperparameters were selected by this metric, so it is optimistic for new specimens.
        out_of_fold: scores of the training cells, [cells, patterns], each from SVMs and neighbours that were fitted to
            other specimens. A classifier of specimens must be trained on these scores.
    """

    layer: str
    cost: float
    neighbours: int
    inner_mca: float
    out_of_fold: Scores
    svms: Pipeline
    knn: KNeighborsClassifier

    def read(self, features: Mapping[str, Float[np.ndarray, "cell _"]]) -> Scores:
        """Scores of the cells: the share of the neighbours' votes for each pattern; `features` is keyed by layer."""
        num_patterns = self.out_of_fold.shape[1]
        return _shares(self.knn, _svm_scores(self.svms, features[self.layer], num_patterns), num_patterns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureReader:
    """SVMs and nearest neighbours on the features of a network."""

    extractor: Extractor
    classifier: SvmKnn

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of the cells, in input order."""
        return self.classifier.read(self.extractor.extract(images, tone_curve, quiet=True).layers)


def fit_svm_knn(
    features: Mapping[str, Float[np.ndarray, "cell _"]],
    patterns: Int[np.ndarray, " cell"],
    specimens: Sequence[str],
    num_patterns: int,
    *,
    grid: Grid | None = None,
    seed: int = 0,
) -> SvmKnn:
    """Select layer, C and k by cross-validation over specimens, then fit to all cells.

    The criterion is mean class accuracy; in a tie, the first layer, then the first C and the first k are selected.

    Args:
        features: features of the training cells, by layer.
        patterns: patterns of the training cells, 0 to num_patterns - 1.
        specimens: specimen of each training cell; cells of one specimen stay in one fold (see `items.units`).
        num_patterns: number of columns of the scores.
        grid: hyperparameters to compare.
        seed: seed of the shuffled folds.

    Raises:
        UsageError: a cell has no specimen, or there are too few specimens for cross-validation.
    """
    grid = grid or Grid()
    patterns = np.asarray(patterns)
    folds = _folds(patterns, specimens, grid.folds, seed)
    best: dict[str, Any] | None = None
    for layer, cost in itertools.product(features, grid.costs):
        scores = _out_of_fold_scores(features[layer], patterns, folds, cost, num_patterns)
        for neighbours in grid.neighbours:
            shares = _out_of_fold_shares(scores, patterns, folds, neighbours)
            mca = float(balanced_accuracy_score(patterns, shares.argmax(1)))
            if best is None or mca > best["inner_mca"]:
                hyperparameters = {"layer": layer, "cost": cost, "neighbours": neighbours}
                best = {**hyperparameters, "inner_mca": mca, "out_of_fold": shares, "scores": scores}
    assert best is not None
    scores, layer_features = best.pop("scores"), features[best["layer"]]
    svms = _fit_svms(layer_features, patterns, best["cost"])
    in_one_fold = _pattern_in_one_fold(patterns, folds)
    if in_one_fold.any():
        scores[in_one_fold] = _svm_scores(svms, layer_features[in_one_fold], num_patterns)
    return SvmKnn(**best, svms=svms, knn=_fit_knn(scores, patterns, best["neighbours"]))


Fold = tuple[np.ndarray, np.ndarray]
"""Row indices of the cells to fit to, and of the held-out cells."""


def _folds(patterns: np.ndarray, specimens: Sequence[str], max_folds: int, seed: int) -> list[Fold]:
    names = np.asarray(specimens)
    if not all(specimens):
        raise UsageError(
            f"{sum(not name for name in specimens)} cells have no specimen, but layer, C and k are selected by "
            "holding out specimens; use a data set with known specimens"
        )
    per_pattern = [len(np.unique(names[patterns == pattern])) for pattern in np.unique(patterns)]
    count = max(2, min(max_folds, *per_pattern))
    folds: list[Fold] = []
    if sum(number > 1 for number in per_pattern) > 1:
        with warnings.catch_warnings():  # scikit-learn warns of patterns with fewer cells than folds, which are allowed
            warnings.simplefilter("ignore", UserWarning)
            splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            folds = list(splitter.split(names, patterns, names))
    if not folds or any(len(np.unique(patterns[fitted])) < 2 for fitted, _ in folds):
        raise UsageError("too few specimens to select layer, C and k: at least two patterns need two specimens each")
    return folds


def _pattern_in_one_fold(patterns: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """Mask of the cells whose pattern is absent from the training part of their fold: its SVMs cannot score it."""
    in_one_fold = np.zeros(len(patterns), bool)
    for fitted, held_out in folds:
        in_one_fold[held_out] = ~np.isin(patterns[held_out], patterns[fitted])
    return in_one_fold


def _fit_svms(features: np.ndarray, patterns: np.ndarray, cost: float) -> Pipeline:
    primal: Any = False  # deterministic, and converges for every C; scikit-learn's type stubs require a string
    svm = LinearSVC(C=cost, dual=primal, class_weight="balanced")
    return make_pipeline(StandardScaler(), svm).fit(features, patterns)


def _svm_scores(svms: Pipeline, features: np.ndarray, num_patterns: int) -> np.ndarray:
    """Signed distance to each one-against-all SVM; -1 for a pattern without an SVM."""
    distances = svms.decision_function(features)
    # For two patterns, scikit-learn fits one SVM; the score of the other pattern is its negative.
    distances = np.stack([-distances, distances], axis=1) if distances.ndim == 1 else distances
    scores = np.full((len(distances), num_patterns), -1.0)
    scores[:, svms.classes_] = distances
    return scores


def _fit_knn(scores: np.ndarray, patterns: np.ndarray, neighbours: int) -> KNeighborsClassifier:
    return KNeighborsClassifier(min(neighbours, len(scores)), weights="distance").fit(scores, patterns)


def _shares(knn: KNeighborsClassifier, scores: np.ndarray, num_patterns: int) -> Scores:
    shares = np.zeros((len(scores), num_patterns))
    shares[:, knn.classes_] = knn.predict_proba(scores)
    return shares


def _out_of_fold_scores(
    features: np.ndarray, patterns: np.ndarray, folds: Sequence[Fold], cost: float, num_patterns: int
) -> np.ndarray:
    scores = np.empty((len(features), num_patterns))
    for fitted, held_out in folds:
        svms = _fit_svms(features[fitted], patterns[fitted], cost)
        scores[held_out] = _svm_scores(svms, features[held_out], num_patterns)
    return scores


def _out_of_fold_shares(scores: np.ndarray, patterns: np.ndarray, folds: Sequence[Fold], neighbours: int) -> Scores:
    shares = np.empty_like(scores)
    for fitted, held_out in folds:
        knn = _fit_knn(scores[fitted], patterns[fitted], neighbours)
        shares[held_out] = _shares(knn, scores[held_out], scores.shape[1])
    return shares
