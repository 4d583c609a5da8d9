"""Combines the predictions of a specimen's pixels or cells into one pattern for the specimen."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

NO_CELL = "no cell was found in it"
"""Reason for a specimen without cells, whatever method segmented it: it gets no pattern, which counts as an error."""


def decide(
    probabilities: Float[np.ndarray, "height width classes"], threshold: float = 0.5
) -> tuple[Bool[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Decide for each pixel whether it is foreground, and which pattern it has.

    Args:
        probabilities: float [height, width, K+1], summing to 1; channel 0 = background, 1+i = pattern i.

    Returns:
        foreground: bool [height, width], true where 1 - p(background) > `threshold`. A pixel whose probability is
            spread over several patterns is still foreground; an argmax over all channels could miss it.
        pattern: int32 [height, width] in 0..K-1, the most probable pattern of each foreground pixel (the first one in a
            tie); 0 on the background.
    """
    if probabilities.ndim != 3 or probabilities.shape[-1] < 2:
        raise ValueError(f"expected probabilities [height, width, 1 + patterns], got {probabilities.shape}")
    foreground = 1 - probabilities[..., 0] > threshold
    places = np.flatnonzero(foreground)
    rows = probabilities.reshape(-1, probabilities.shape[-1]).take(places, axis=0)
    pattern = np.zeros(foreground.shape, np.int32)
    pattern.reshape(-1)[places] = _first_largest(np.ascontiguousarray(rows[:, 1:].T))
    return foreground, pattern


def _first_largest(values: Float[np.ndarray, "pattern pixels"]) -> Int[np.ndarray, " pixels"]:
    """`values.argmax(axis=0)`, several times as fast where there are few patterns and many pixels."""
    largest, winner = values[0].copy(), np.zeros(values.shape[1], np.int32)
    for index, row in enumerate(values[1:], start=1):
        np.copyto(winner, index, where=row > largest)
        np.maximum(largest, row, out=largest)
    return winner


def pattern_counts(
    foreground: Bool[np.ndarray, "height width"], pattern: Int[np.ndarray, "height width"], num_patterns: int
) -> Int[np.ndarray, " patterns"]:
    """Number of foreground pixels of each pattern in one field, int64 [K]: one row of the argument of `vote`."""
    return np.bincount(pattern[foreground], minlength=num_patterns)


def vote(counts: Int[np.ndarray, "*fields patterns"]) -> int | None:
    """The pattern of the most foreground pixels (of the most patches, for `joint`), pooled over all fields.

    Pooling weights each field by its foreground, as in Li, Shen and Yu, IEEE TMI 36 (2017), FCRN (our interpretation:
    a majority over the foreground pixels of the images of a specimen). In a tie, the first pattern in class order wins.

    Args:
        counts: number of foreground pixels, int [fields, K], or [K] for a single field.

    Returns:
        The index of the pattern, or None if there is no foreground: a specimen without cells has no pattern, whatever
        its background looks like. Evaluation, prediction and the systems all return None in this case, and
        `metrics.classification_metrics` counts it as an error. The value is not -1, because indexing with -1 would
        silently select the last pattern.
    """
    pooled = _pool(counts)
    return int(pooled.argmax()) if pooled.any() else None


def prevalent(counts: Int[np.ndarray, " patterns"], mean_probability: Float[np.ndarray, " patterns"]) -> int:
    """The most frequent pattern among the cells of a specimen (Cascio, Taormina, Raso, Appl. Sci. 9, 2019).

    In a tie, the pattern with the highest mean probability wins. This is our choice: the paper gives no rule.

    Args:
        counts: number of cells predicted as each pattern, int [K].
        mean_probability: mean probability over the cells, float [K].
    """
    tied = counts == counts.max()
    return int(np.where(tied, mean_probability, -1.0).argmax())


def vote_shares(counts: Int[np.ndarray, "*fields patterns"]) -> Float[np.ndarray, " patterns"]:
    """Share of the pooled foreground with each pattern, float64 [K]; zeros if there is no foreground."""
    pooled = _pool(counts)
    return pooled / max(int(pooled.sum()), 1)


def _pool(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim not in (1, 2) or not counts.shape[-1] or (counts < 0).any():
        raise ValueError(f"expected pixel counts [fields, patterns], none negative, got shape {counts.shape}")
    return counts.reshape(-1, counts.shape[-1]).sum(axis=0)


Scores = Float[np.ndarray, "cell pattern"]
"""One row of pattern scores for each cell; they are not negative, and each row sums to 1. The predicted pattern of a
cell is the one with the highest score."""
Decision = tuple[int, Float[np.ndarray, " pattern"]]
"""The pattern of a specimen and the scores of all patterns, which are not negative and sum to 1."""
_LEAST_SCORE = 1e-4
Rule = Callable[[Scores], Decision]
"""Classifies a specimen by the scores of its cells, of which there is at least one."""


def by_prevalence(scores: Scores) -> Decision:
    """Apply `prevalent` to the predictions of the cells; the scores are the shares of cells with each pattern."""
    return prevalent(_cell_counts(scores), scores.mean(axis=0)), pattern_histogram(scores)


def by_mean_probability(scores: Scores) -> Decision:
    """The pattern with the highest mean score, or the first in a tie; unlike a vote, uncertain cells count less."""
    mean = scores.mean(axis=0)
    return int(mean.argmax()), mean


def by_mean_log_probability(scores: Scores) -> Decision:
    """The pattern with the highest mean logarithm of its score: the product of the cells, as if they were independent.

    A cell counts at most as much as a score of 0.0001 does. The scores are the normalised geometric means.
    """
    mean = np.log(np.maximum(scores, _LEAST_SCORE)).mean(axis=0)
    return int(mean.argmax()), softmax(mean)


def reread(scores: Scores, weight: float = 1.0) -> Scores:
    """The cells of one specimen, read again in the light of its other cells. This is transductive.

    The mean score of the other cells is added to that of each cell, times a weight; then rows are divided by their
    sum. A single cell stays as it is. Who reports this says so: the reading of a cell depends on which cells it was
    read with.
    """
    others = (scores.sum(axis=0) - scores) / max(len(scores) - 1, 1)
    return (scores + weight * others) / (scores + weight * others).sum(axis=1, keepdims=True)


def pattern_histogram(scores: Scores) -> Float[np.ndarray, " pattern"]:
    """Share of the cells predicted as each pattern, float64 [K] (Li, Huang, Zheng, Xie, Zhang, ICPR 2016)."""
    return _cell_counts(scores) / len(scores)


def _cell_counts(scores: Scores) -> Int[np.ndarray, " pattern"]:
    return np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistogramSvm:
    """A `Rule`: a linear SVM on the pattern histogram of a specimen (Li, Huang, Zheng, Xie, Zhang, ICPR 2016).

    Unlike a vote, it learns which patterns the cell classifier confuses, and can correct frequent confusions. From the
    source: histogram of all cell-level predictions, SVM. Our interpretation: shares instead of counts, because
    specimens differ in their number of cells, and a linear one-against-all SVM with equal weights of the patterns.
    """

    svm: "LinearSVC"
    num_patterns: int

    def __call__(self, scores: Scores) -> Decision:
        """Classify a specimen; the scores are a softmax of the SVM distances, not calibrated probabilities."""
        distances = np.asarray(self.svm.decision_function(pattern_histogram(scores)[None]))[0]
        # For two patterns, scikit-learn fits one SVM; the score of the other pattern is its negative.
        distances = np.array([-distances, distances]) if distances.ndim == 0 else distances
        shares = np.zeros(self.num_patterns)
        shares[self.svm.classes_] = softmax(distances)
        return int(shares.argmax()), shares


def fit_histogram_svm(
    specimens: Sequence[Float[np.ndarray, "_ pattern"]], patterns: Sequence[int], *, cost: float = 10.0
) -> HistogramSvm:
    """Train on specimens with known patterns.

    Args:
        specimens: scores of the cells of each training specimen. They must come from a classifier that was not trained
            on these cells (`cell_readers.SvmKnn.out_of_fold`, or the folds of a cross-validation): on its training
            cells a classifier makes far fewer errors than on the cells of new specimens.
        patterns: patterns of the specimens.
        cost: C of the SVM; the default is our choice for shares between 0 and 1.

    Raises:
        ValueError: the specimens have fewer than two patterns.
    """
    from sklearn.svm import LinearSVC  # late: scikit-learn takes most of a second, and few commands use it

    histograms = np.stack([pattern_histogram(scores) for scores in specimens])
    primal: Any = False  # deterministic; scikit-learn's type stubs require a string
    svm = LinearSVC(C=cost, dual=primal, class_weight="balanced").fit(histograms, patterns)
    return HistogramSvm(svm=svm, num_patterns=histograms.shape[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenReading:
    """The prediction for one specimen."""

    specimen: str
    pattern: int
    scores: Float[np.ndarray, " pattern"]
    num_cells: int
    """Number of cells used."""
    num_set_aside: int
    """Number of mitotic cells that were not used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenReadings:
    """The predictions for several specimens, in the requested order."""

    readings: tuple[SpecimenReading, ...]
    left_out: dict[str, str]
    """Specimens that could not be read, each with the reason."""


def read_specimens(
    scores: Scores,
    cells_specimens: Sequence[str],
    rule: Rule,
    *,
    specimens: Sequence[str] = (),
    mitotic: Bool[np.ndarray, " cell"] | None = None,
    use_mitotic: bool = False,
) -> SpecimenReadings:
    """Classify every specimen by its cells. A specimen without cells is left out, with the reason.

    Args:
        scores: scores of the cells of all specimens, float [cells, K].
        cells_specimens: specimen of each cell.
        rule: `by_prevalence`, `by_mean_probability` or a `HistogramSvm`.
        specimens: specimens to read; empty: all that have a cell, in order of their first cell.
        mitotic: which cells are mitotic; None: unknown, all cells are used.
        use_mitotic: use mitotic cells like the others. They help an expert to confirm a pattern, but their chromatin is
            condensed, and cell classifiers are trained on interphase cells; by default they are not used.
    """
    if scores.ndim != 2 or len(scores) != len(cells_specimens):
        raise ValueError(f"expected scores [cells, patterns] of {len(cells_specimens)} cells, got {scores.shape}")
    names = np.asarray(cells_specimens, dtype=object)
    set_aside = np.zeros(len(names), bool) if mitotic is None or use_mitotic else np.asarray(mitotic, bool)
    readings, left_out = [], {}
    for specimen in specimens or dict.fromkeys(cells_specimens):
        of_specimen = names == specimen
        used, num_set_aside = scores[of_specimen & ~set_aside], int((of_specimen & set_aside).sum())
        if not len(used):
            reason = f"all its {num_set_aside} cells are mitotic and were not used" if num_set_aside else NO_CELL
            left_out[specimen] = reason
            continue
        pattern, shares = rule(used)
        readings.append(
            SpecimenReading(
                specimen=specimen, pattern=pattern, scores=shares, num_cells=len(used), num_set_aside=num_set_aside
            )
        )
    return SpecimenReadings(readings=tuple(readings), left_out=left_out)
