"""From the pixels of a specimen's fields, or from its cells, to one pattern for the specimen."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax
from sklearn.svm import LinearSVC

NO_CELL = "no cell was found in it"
"""Why a specimen cannot be read, whoever looked for its cells: it has no pattern, and that is an error."""


def decide(
    probabilities: Float[np.ndarray, "height width classes"], threshold: float = 0.5
) -> tuple[Bool[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Decide each pixel: is it cell, and if so which pattern.

    Args:
        probabilities: float [height, width, K+1], summing to 1; channel 0 = background, 1+i = pattern i.

    Returns:
        foreground: bool [height, width], where 1 - p(background) > `threshold`. A pixel that is torn between patterns
            is still cell, which an argmax over all channels would miss.
        pattern: int32 [height, width] in 0..K-1, the most probable pattern (the first of equals); defined on
            every pixel, meaningful on the foreground.
    """
    if probabilities.ndim != 3 or probabilities.shape[-1] < 2:
        raise ValueError(f"expected probabilities [height, width, 1 + patterns], got {probabilities.shape}")
    foreground = 1 - probabilities[..., 0] > threshold
    return foreground, probabilities[..., 1:].argmax(axis=-1).astype(np.int32)


def pattern_counts(
    foreground: Bool[np.ndarray, "height width"], pattern: Int[np.ndarray, "height width"], num_patterns: int
) -> Int[np.ndarray, " patterns"]:
    """Foreground pixels of each pattern in one field, int64 [K]: one row of what `vote` takes."""
    return np.bincount(pattern[foreground], minlength=num_patterns)


def vote(counts: Int[np.ndarray, "fields patterns"]) -> int | None:
    """The specimen's pattern: that of most foreground pixels (of most patches, for `joint`), all fields pooled.

    Pooling gives each field the weight of its foreground, as in Li, Shen and Yu, IEEE TMI 36 (2017), FCRN
    (our reading: a majority over the foreground pixels of a specimen's images). Ties go to the first of the tied
    patterns in class order.

    Args:
        counts: foreground pixels, int [fields, K]; a single field may come as [K].

    Returns:
        The pattern's index, or None where nothing votes: no cell was found in the specimen, so it has no pattern,
        whatever the background looks like. Evaluation, prediction and the systems all say so; None is counted as an
        error by `metrics.classification_metrics`. It is no index: -1 would silently name the last pattern.
    """
    pooled = _pool(counts)
    return int(pooled.argmax()) if pooled.any() else None


def prevalent(counts: Int[np.ndarray, " patterns"], mean_probability: Float[np.ndarray, " patterns"]) -> int:
    """The pattern of most of a specimen's cells, as in Cascio, Taormina, Raso, Appl. Sci. 9 (2019).

    Ties go to the tied pattern of the highest mean probability (the paper names no rule: our reading).

    Args:
        counts: cells read as each pattern, int [K].
        mean_probability: float [K], averaged over the cells.
    """
    tied = counts == counts.max()
    return int(np.where(tied, mean_probability, -1.0).argmax())


def vote_shares(counts: Int[np.ndarray, "fields patterns"]) -> Float[np.ndarray, " patterns"]:
    """Share of the pooled foreground that voted for each pattern, float64 [K]; zeros where there is none."""
    pooled = _pool(counts)
    return pooled / max(int(pooled.sum()), 1)


def _pool(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim not in (1, 2) or not counts.shape[-1] or (counts < 0).any():
        raise ValueError(f"expected pixel counts [fields, patterns], none negative, got shape {counts.shape}")
    return counts.reshape(-1, counts.shape[-1]).sum(axis=0)


Scores = Float[np.ndarray, "cell pattern"]
"""Of each pattern for each cell of one specimen: none negative, rows sum to 1. A cell's reading is its highest."""
Decision = tuple[int, Float[np.ndarray, " pattern"]]
"""The specimen's pattern and a score of every pattern, none negative, of sum 1."""
Rule = Callable[[Scores], Decision]
"""Reads a specimen from its cells, at least one."""


def by_prevalence(scores: Scores) -> Decision:
    """`prevalent` over the cells' readings; the scores are the shares of the cells."""
    return prevalent(_cell_counts(scores), scores.mean(axis=0)), pattern_histogram(scores)


def by_mean_probability(scores: Scores) -> Decision:
    """The pattern of the highest mean score, the first of equals; unlike a vote it counts unsure cells less."""
    mean = scores.mean(axis=0)
    return int(mean.argmax()), mean


def pattern_histogram(scores: Scores) -> Float[np.ndarray, " pattern"]:
    """Share of the cells that are read as each pattern, float64 [K] (Li, Huang, Zheng, Xie, Zhang, ICPR 2016)."""
    return _cell_counts(scores) / len(scores)


def _cell_counts(scores: Scores) -> Int[np.ndarray, " pattern"]:
    return np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistogramSvm:
    """A linear SVM on the pattern histogram of a specimen (Li, Huang, Zheng, Xie, Zhang, ICPR 2016); a `Rule`.

    Unlike the vote it learns which patterns the cell reader confuses: cells of one pattern that are often read as
    another still vote for the first. Sourced: histogram of all cell-level predictions, SVM. Our reading: shares, not
    counts, as specimens differ in their number of cells; a linear SVM, one-against-all, patterns weighted equally.
    """

    svm: LinearSVC
    num_patterns: int

    def __call__(self, scores: Scores) -> Decision:
        """The specimen's pattern; the scores are a softmax of the SVMs' distances, not calibrated probabilities."""
        distances = np.asarray(self.svm.decision_function(pattern_histogram(scores)[None]))[0]
        distances = np.array([-distances, distances]) if distances.ndim == 0 else distances
        shares = np.zeros(self.num_patterns)
        shares[self.svm.classes_] = softmax(distances)
        return int(shares.argmax()), shares


def fit_histogram_svm(specimens: Sequence[Scores], patterns: Sequence[int], *, cost: float = 10.0) -> HistogramSvm:
    """Train on specimens whose pattern is known.

    Args:
        specimens: scores of the cells of each training specimen. They must come from a reader that did not train on
            these cells (`cell_readers.SvmKnn.out_of_fold`, or the folds of a cross-validation): the histograms of cells
            that a reader has learnt by heart are far purer than those of new specimens.
        patterns: of the specimens.
        cost: C of the SVM; ours, as shares lie between 0 and 1.

    Raises:
        ValueError: fewer than two patterns among the specimens.
    """
    histograms = np.stack([pattern_histogram(scores) for scores in specimens])
    primal: Any = False  # deterministic; scikit-learn's stubs want a string
    svm = LinearSVC(C=cost, dual=primal, class_weight="balanced").fit(histograms, patterns)
    return HistogramSvm(svm=svm, num_patterns=histograms.shape[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenReading:
    """What is said of one specimen."""

    specimen: str
    pattern: int
    scores: Float[np.ndarray, " pattern"]
    num_cells: int
    """Cells that were used."""
    num_set_aside: int
    """Mitotic cells that were not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenReadings:
    """All specimens, in the order asked for."""

    readings: tuple[SpecimenReading, ...]
    left_out: dict[str, str]
    """Specimens that could not be read, and why."""


def read_specimens(
    scores: Scores,
    cells_specimens: Sequence[str],
    rule: Rule,
    *,
    specimens: Sequence[str] = (),
    mitotic: Bool[np.ndarray, " cell"] | None = None,
    use_mitotic: bool = False,
) -> SpecimenReadings:
    """Read every specimen from its cells; one without any is left out, with the reason, and the rest goes on.

    Args:
        scores: of all cells of all specimens, float [cells, K].
        cells_specimens: the specimen of each cell.
        rule: `by_prevalence`, `by_mean_probability` or a `HistogramSvm`.
        specimens: all that should be read; empty: those that have a cell, in the order of their first.
        mitotic: which cells are mitotic; None: unknown, all are used.
        use_mitotic: count them like the others. Their chromatin is condensed: they confirm a pattern to an expert, but
            readers of cells are trained on interphase cells, so by default they are set aside.
    """
    if scores.ndim != 2 or len(scores) != len(cells_specimens):
        raise ValueError(f"expected scores [cells, patterns] of {len(cells_specimens)} cells, got {scores.shape}")
    names = np.asarray(cells_specimens, dtype=object)
    aside = np.zeros(len(names), bool) if mitotic is None or use_mitotic else np.asarray(mitotic, bool)
    readings, left_out = [], {}
    for specimen in specimens or dict.fromkeys(cells_specimens):
        own = names == specimen
        used, put_aside = scores[own & ~aside], int((own & aside).sum())
        if not len(used):
            found = f"all its {put_aside} cells are mitotic and set aside" if put_aside else NO_CELL
            left_out[specimen] = found
            continue
        pattern, shares = rule(used)
        readings.append(
            SpecimenReading(
                specimen=specimen, pattern=pattern, scores=shares, num_cells=len(used), num_set_aside=put_aside
            )
        )
    return SpecimenReadings(readings=tuple(readings), left_out=left_out)
