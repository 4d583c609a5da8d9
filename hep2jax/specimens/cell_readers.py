"""Readers of single cells behind one interface: a score of every pattern for every cell.

* `FeatureReader`: features of a network → one-against-all SVMs → k nearest neighbours (Cascio, Taormina, Raso 2019).
* `NetworkReader`: a cell network, its probabilities as they are.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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
from hep2jax.tasks.cells import CellEvaluator

Scores = Float[np.ndarray, "cell pattern"]
"""Of each pattern for each cell: none negative, rows sum to 1. The reading is the highest, the first of equals."""


class CellReader(Protocol):
    """Reads ready cells."""

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of each pattern, in order; images and tone_curve as `cells.preprocess` gives them."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkReader:
    """A cell network of ours (`CellEvaluator` with its parameters): softmax probabilities."""

    evaluator: CellEvaluator
    parameters: Parameters

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of each pattern, in order."""
        return self.evaluator.predict(self.parameters, images, tone_curve)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """What the inner cross-validation chooses from; where two choices are equal, the first wins."""

    costs: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """C of the SVMs: small, as standardised features are long vectors."""
    neighbours: tuple[int, ...] = (15, 9, 5, 3, 1)
    folds: int = 5
    """At most; no more than the rarest pattern has specimens, and at least 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SvmKnn:
    """One-against-all SVMs on one layer's features, k nearest neighbours on the vector of their scores.

    Cascio, Taormina, Raso, Appl. Sci. 9(8):1618 (2019). Sourced: features of a pre-trained network, six SVMs (so
    one-against-all, for six patterns) and a k-nearest-neighbours classifier, "layers ... and system parameters were
    evaluated". Our reading, as the body of the paper was not available:
    * linear SVMs (squared hinge) on features standardised by the training cells, patterns weighted equally;
    * the neighbours are the training cells by their scores out of fold: an SVM that has seen a cell scores it nearer
      to +-1 than it scores new cells. A pattern that a fold's SVMs have not seen scores -1; the cells of a pattern
      with a single specimen, which no other fold knows, lie where the SVMs fitted on all cells see them;
    * neighbours vote with the inverse of their distance.

    Attributes:
        layer, cost, neighbours: what the inner cross-validation chose.
        inner_mca: mean class accuracy that it measured with them, 0 to 1, whole specimens held out. It chose by this
            figure: expect less on new specimens.
        out_of_fold: scores of the training cells, each by SVMs and neighbours of other specimens, [cells, patterns]:
            what a reader of specimens is to be trained on.
    """

    layer: str
    cost: float
    neighbours: int
    inner_mca: float
    out_of_fold: Scores
    svms: Pipeline
    knn: KNeighborsClassifier

    def read(self, features: Mapping[str, Float[np.ndarray, "cell _"]]) -> Scores:
        """Scores of each pattern: the neighbours' share of the vote; `features` by layer."""
        num_patterns = self.out_of_fold.shape[1]
        return _shares(self.knn, _svm_scores(self.svms, features[self.layer], num_patterns), num_patterns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureReader:
    """A network's features, read by SVMs and neighbours."""

    extractor: Extractor
    classifier: SvmKnn

    def read(self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]) -> Scores:
        """Scores of each pattern, in order."""
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
    """Choose layer, C and k by cross-validation over whole specimens, then fit on all cells.

    The choice is by mean class accuracy; of equals the first layer, C and k in their order win.

    Args:
        features: of the training cells, by layer.
        patterns: of the training cells, 0 to num_patterns - 1.
        specimens: of the training cells; what must stay on one side (see `items.units`).
        num_patterns: width of the scores.
        grid: what to choose from.
        seed: of the folds.

    Raises:
        UsageError: a cell without a specimen, or too few specimens to hold some out.
    """
    grid = grid or Grid()
    patterns = np.asarray(patterns)
    folds = _folds(patterns, specimens, grid.folds, seed)
    best: dict[str, Any] | None = None
    for layer, cost in itertools.product(features, grid.costs):
        scores = _out_of_fold_scores(features[layer], patterns, folds, cost, num_patterns)
        for neighbours in grid.neighbours:
            read = _out_of_fold_shares(scores, patterns, folds, neighbours)
            mca = float(balanced_accuracy_score(patterns, read.argmax(1)))
            if best is None or mca > best["inner_mca"]:
                chosen = {"layer": layer, "cost": cost, "neighbours": neighbours}
                best = {**chosen, "inner_mca": mca, "out_of_fold": read, "scores": scores}
    assert best is not None
    scores, chosen = best.pop("scores"), features[best["layer"]]
    svms = _fit_svms(chosen, patterns, best["cost"])
    alone = _unknown_elsewhere(patterns, folds)
    if alone.any():
        scores[alone] = _svm_scores(svms, chosen[alone], num_patterns)
    return SvmKnn(**best, svms=svms, knn=_fit_knn(scores, patterns, best["neighbours"]))


Fold = tuple[np.ndarray, np.ndarray]
"""Rows of the cells to fit on, and of those held out."""


def _folds(patterns: np.ndarray, specimens: Sequence[str], most: int, seed: int) -> list[Fold]:
    names = np.asarray(specimens)
    if not all(specimens):
        raise UsageError(
            f"{sum(not name for name in specimens)} cells have no specimen: layer, C and k are chosen by holding out "
            "whole specimens; use a set whose specimens are known"
        )
    per_pattern = [len(np.unique(names[patterns == pattern])) for pattern in np.unique(patterns)]
    count = max(2, min(most, *per_pattern))
    folds: list[Fold] = []
    if sum(number > 1 for number in per_pattern) > 1:
        with warnings.catch_warnings():  # of patterns with fewer cells than folds: they are read by the other folds
            warnings.simplefilter("ignore", UserWarning)
            splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            folds = list(splitter.split(names, patterns, names))
    if not folds or any(len(np.unique(patterns[fitted])) < 2 for fitted, _ in folds):
        raise UsageError("too few specimens to choose layer, C and k: two patterns or more need two specimens each")
    return folds


def _unknown_elsewhere(patterns: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """Cells whose pattern only their own fold has: no SVM of another fold could know where they lie."""
    alone = np.zeros(len(patterns), bool)
    for fitted, held_out in folds:
        alone[held_out] = ~np.isin(patterns[held_out], patterns[fitted])
    return alone


def _fit_svms(features: np.ndarray, patterns: np.ndarray, cost: float) -> Pipeline:
    primal: Any = False  # deterministic, and it converges whatever C is; scikit-learn's stubs want a string
    svm = LinearSVC(C=cost, dual=primal, class_weight="balanced")
    return make_pipeline(StandardScaler(), svm).fit(features, patterns)


def _svm_scores(svms: Pipeline, features: np.ndarray, num_patterns: int) -> np.ndarray:
    """Signed distances of each one-against-all SVM; -1 where there is none."""
    found = svms.decision_function(features)
    # Of two patterns scikit-learn fits one SVM: the other is its mirror image.
    found = np.stack([-found, found], axis=1) if found.ndim == 1 else found
    scores = np.full((len(found), num_patterns), -1.0)
    scores[:, svms.classes_] = found
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
