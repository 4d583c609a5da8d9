"""95 % intervals of metrics with the specimen as the unit, computed in float64. Undefined values (0/0) are NaN.

All of them are Wilson's interval with different effective numbers of trials. docs/intervals.md gives the coverage of
each kind, simulated by `scripts/simulate_coverage.py`, and explains why there is no bootstrap.
"""

# pyright: reportMissingTypeStubs=false
# (scipy has no type stubs)

import math

import numpy as np
from jaxtyping import Float, Num
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
        trials: the number of trials that it comes from; fractions are allowed.
        quantile: quantile of the standard normal distribution, or Student's if the number of trials is estimated.

    Returns:
        An interval in [0, 1] that contains the share; None without trials.
    """
    if not trials > 0:
        return None
    spread = quantile**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def trials_interval(
    right: Num[np.ndarray, " classes"], total: Num[np.ndarray, " classes"], weights: Num[np.ndarray, " classes"]
) -> Interval | None:
    """Interval of a weighted mean of recalls from independent trials: Wilson's, with the effective number of trials.

    If the recalls are about equal, the mean varies like one proportion from 1 / Σ(w_k² / n_k) trials, where the weights
    w have sum 1. If the weights are the numbers of trials (accuracy), that is the number of all trials; with equal
    weights (MCA) it is smaller. If the recalls differ, the interval is too wide, unless a class with few trials has a
    far lower recall than the others. The alternative, to average the intervals of the classes, draws the interval
    towards one half, and more so the more classes there are.

    Args:
        right: number of successes of each class; fractions are allowed.
        total: number of trials of each class, positive.
        weights: weights of the classes, positive, with any sum.
    """
    mean, weights = _weighted_mean(right / total, weights)
    return score_interval(mean, 1 / math.fsum(weights**2 / total))


def clustered_interval(
    right: Num[np.ndarray, "specimens classes"],
    items: Num[np.ndarray, "specimens classes"],
    weights: Num[np.ndarray, " classes"],
) -> Interval | None:
    """Interval of a weighted mean of recalls of items clustered in specimens: Wilson's, with effective trials.

    A specimen whose items are all right or all wrong is worth one trial; a specimen whose recall is like that of the
    others of its class is worth more. How much more follows from the ratio of two spreads: that of specimens within
    their classes, and that which all-or-nothing specimens would have. All classes share one ratio, because a class may
    have only two specimens. This is the effective sample size of surveys with Student's quantile (Korn and Graubard,
    Survey Methodology 24, 1998) in Wilson's interval. Three additions of ours counter intervals that are too narrow by
    chance when there are few specimens: 0.01 √(degrees of freedom) is added to both sums of squares of the ratio, so
    that specimens which all agree are one trial each; the all-or-nothing variance of a class is shrunk towards that of
    all classes with the weight of one more specimen, and that of all classes towards the mean's with the weight of
    eight; the degrees of freedom are Satterthwaite's. A specimen with items of several classes counts as one specimen
    of each.

    Args:
        right: number of right items of each specimen and class.
        items: number of all items; every class has at least one.
        weights: weights of the classes, positive, with any sum.
    """
    total, degrees = items.sum(0), np.count_nonzero(items, axis=0) - 1
    shares, recall = items / total, right.sum(0) / total
    mean, weights = _weighted_mean(recall, weights)
    concentration = (shares**2).sum(0)  # 1 over the number of specimens, where they are of equal size
    squares = (shares * (ratio(right, items, undefined=0.0) - recall) ** 2).sum(0)
    variance = ratio(squares, 1 - concentration, undefined=0.0) * (degrees > 0)
    all_or_nothing = recall * (1 - recall) + variance * concentration
    freedom, fewest = int(degrees.sum()), 1 / float(weights**2 @ concentration)
    if not freedom:  # with one specimen per class there is no spread to estimate
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
    """Interval of any metric in [0, 1]: Wilson's, with the number of trials that corresponds to the jackknife variance.

    Args:
        value: the metric of all specimens; None or NaN if it is undefined.
        without: the metric without each specimen in turn.
        doubt: times √(degrees of freedom), this is added to both sums of squares as in `clustered_interval`; it is
            smaller than there, because a specimen's share of pixels is hardly ever all or nothing.

    Returns:
        None with fewer than two specimens, or if the metric is undefined or depends on one specimen alone.
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
    """The mean, which is exact if all values are 1, and the weights scaled to sum 1."""
    total = math.fsum(weights)
    return math.fsum(weights * values) / total, weights / total


def _worth(squares: float, all_or_nothing: float, freedom: int, doubt: float) -> float:
    """1 / the number of trials that a specimen is worth; 1 if specimens are all right or all wrong, or all agree."""
    doubt *= math.sqrt(freedom)
    return min(1.0, float((squares + doubt) / (all_or_nothing + doubt)))


def _student(freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.975))
