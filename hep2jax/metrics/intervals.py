"""95 % intervals of metrics with the specimen as the unit, on the host in float64. Undefined values (0/0) are NaN.

All are one interval, Wilson's, and differ in what a specimen is worth: docs/intervals.md has the coverage of each kind,
simulated by `scripts/simulate_coverage.py`, and why no bootstrap is among them.
"""

# pyright: reportMissingTypeStubs=false
# scipy has none.

import math

import numpy as np
from jaxtyping import Float
from scipy import special

from hep2jax.metrics.estimates import Interval, ratio

TRIALS = "Wilson's, one trial a specimen; of MCA with the effective number of trials"
CLUSTERED = "Wilson's, with the effective number of trials by the spread of specimens within their class, Student's t"
JACKKNIFE = "Wilson's, with the effective number of trials by the jackknife over specimens, Student's t"

_Z95 = float(special.ndtri(0.975))
_DOUBT_OF_SHARES, _DOUBT_OF_METRICS = 0.01, 0.001
_OWN_CLASS, _ALL_CLASSES = 1, 8


def score_interval(share: float, trials: float, quantile: float = _Z95) -> Interval | None:
    """Wilson's score interval of a proportion (JASA 22, 1927).

    Args:
        share: the proportion, in [0, 1].
        trials: how many it comes from; fractions are allowed.
        quantile: of the standard normal; Student's where the trials themselves are estimated.

    Returns:
        An interval in [0, 1], which contains the share; None without trials.
    """
    if not trials > 0:
        return None
    spread = quantile**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def trials_interval(
    right: Float[np.ndarray, " classes"], total: Float[np.ndarray, " classes"], weights: Float[np.ndarray, " classes"]
) -> Interval | None:
    """Interval of a weighted mean of recalls, each from independent trials: Wilson's, with their effective number.

    The mean varies as one proportion from 1 / Σ(w_k² / n_k) trials, w of sum 1, if the recalls are about equal. With
    the trials for weights (accuracy) these are all trials, with equal weights (MCA) fewer. Where the recalls differ the
    interval is too wide, except where a class of few trials is read far worse than the others. Intervals made class by
    class and averaged are drawn towards one half instead, the more the more classes there are.

    Args:
        right: successes of each class; fractions are allowed.
        total: trials of each class, positive.
        weights: of the classes, positive, of any sum.
    """
    mean, weights = _weighted_mean(right / total, weights)
    return score_interval(mean, 1 / math.fsum(weights**2 / total))


def clustered_interval(
    right: Float[np.ndarray, "specimens classes"],
    items: Float[np.ndarray, "specimens classes"],
    weights: Float[np.ndarray, " classes"],
) -> Interval | None:
    """Interval of a weighted mean of recalls of items that lie in specimens: Wilson's, with their effective number.

    A specimen whose items are wholly right or wholly wrong is one trial; one that is read like the others of its class
    is worth more. How much more is the spread of specimens within their classes over the spread that all-or-nothing
    specimens would have, one ratio for all classes, as a class may have two specimens. This is the effective sample
    size of surveys with Student's quantile (Korn and Graubard, Survey Methodology 24, 1998) in Wilson's interval, with
    three additions of ours against intervals that few specimens make too narrow by chance: 0.01 √(degrees of freedom)
    is added to both sums of squares of the ratio, so that specimens which all agree are one trial each; a class's
    all-or-nothing variance is drawn to that of all classes as if by one specimen more, and theirs to the mean's as if
    by eight; the degrees of freedom are Satterthwaite's. A specimen with items of several classes counts as one of
    each.

    Args:
        right: items that are right.
        items: all items; every class has one.
        weights: of the classes, positive, of any sum.
    """
    total, degrees = items.sum(0), np.count_nonzero(items, axis=0) - 1
    shares, recall = items / total, right.sum(0) / total
    mean, weights = _weighted_mean(recall, weights)
    concentration = (shares**2).sum(0)  # 1 over the number of specimens, where they are of equal size
    squares = (shares * (ratio(right, items, undefined=0.0) - recall) ** 2).sum(0)
    variance = ratio(squares, 1 - concentration, undefined=0.0) * (degrees > 0)
    all_or_nothing = recall * (1 - recall) + variance * concentration
    freedom, fewest = int(degrees.sum()), 1 / float(weights**2 @ concentration)
    if not freedom:  # one specimen a class shows no spread
        return score_interval(mean, fewest)
    worth = _worth(degrees @ variance, degrees @ all_or_nothing, freedom, _DOUBT_OF_SHARES)
    of_mean = mean * (1 - mean)
    pooled = (degrees @ all_or_nothing + _ALL_CLASSES * of_mean) / (freedom + _ALL_CLASSES)
    parts = weights**2 * concentration * (degrees * all_or_nothing + _OWN_CLASS * pooled) / (degrees + _OWN_CLASS)
    if parts.sum() > 0:
        worth *= min(1.0, float(parts.sum()) * fewest / of_mean)
        freedom = min(freedom, float(parts.sum() ** 2 / (parts**2 / (degrees + 1)).sum()))
    return score_interval(mean, fewest / worth, _student(freedom))


def jackknife_interval(
    value: float | None, without: Float[np.ndarray, " specimens"], doubt: float = _DOUBT_OF_METRICS
) -> Interval | None:
    """Interval of a metric in [0, 1] of any form: Wilson's, with as many trials as the jackknife's variance is worth.

    Args:
        value: of all specimens; None or NaN where it is undefined.
        without: the metric without each specimen in turn.
        doubt: times √(degrees of freedom), what is added to both sums of squares as in `clustered_interval`; less than
            there, for a specimen's share of pixels is hardly ever all or nothing.

    Returns:
        None below two specimens, and where the metric is undefined or rests on one specimen alone.
    """
    number, freedom = len(without), len(without) - 1
    if number < 2 or value is None or not (math.isfinite(value) and np.isfinite(without).all()):
        return None
    squares = freedom**2 * math.fsum((without - without.mean()) ** 2)
    worth = _worth(squares, freedom * value * (1 - value), freedom, doubt)
    return score_interval(value, number / worth, _student(freedom))


def paired_interval(differences: Float[np.ndarray, " specimens"]) -> Interval | None:
    """Interval of a mean of differences of shares, each in [-1, 1]: `jackknife_interval` of (1 + mean) / 2."""
    halved = (1 + np.asarray(differences, np.float64)) / 2
    without = (halved.sum() - halved) / max(len(halved) - 1, 1)
    interval = jackknife_interval(float(halved.mean()), without, _DOUBT_OF_SHARES) if len(halved) else None
    return interval and Interval(*(2 * end - 1 for end in interval))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean, exact where all values are 1, and the weights of sum 1."""
    total = math.fsum(weights)
    return math.fsum(weights * values) / total, weights / total


def _worth(squares: float, all_or_nothing: float, freedom: int, doubt: float) -> float:
    """The trials that a specimen is worth, inverted; 1 where specimens are read wholly right or wrong, or all agree."""
    doubt *= math.sqrt(freedom)
    return min(1.0, float((squares + doubt) / (all_or_nothing + doubt)))


def _student(freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.975))
