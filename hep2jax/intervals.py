"""Intervals of figures with the specimen as the unit, on the host in float64. Undefined figures (0/0) are NaN."""

import math
import statistics
from collections.abc import Hashable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Interval = list[float] | None

_Z95 = statistics.NormalDist().inv_cdf(0.975)


def wilson_interval(right: float, total: float) -> Interval:
    """Wilson's 95 % score interval of a proportion (JASA 22, 1927), from possibly fractional counts."""
    if total <= 0:
        return None
    share, spread = right / total, _Z95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def mean_recall_interval(right: Float[np.ndarray, " classes"], total: Float[np.ndarray, " classes"]) -> Interval:
    """95 % interval of a mean of independent recalls: Wilson's, with the effective number of trials.

    The mean of K recalls from n_k trials each varies as one proportion from K² / Σ(1/n_k) trials, if the recalls
    are about equal; where a small class is read far worse than the others the interval is somewhat too narrow.
    Intervals made class by class and averaged are drawn towards one half instead, the more the more classes there are.

    Args:
        right: successes per class; fractions are allowed.
        total: trials per class; classes without a trial are left out.

    Returns:
        [low, high], or None where no class has a trial.
    """
    right, total = np.asarray(right, np.float64), np.asarray(total, np.float64)
    tried = total > 0
    if not tried.any():
        return None
    recalls = right[tried] / total[tried]
    effective = tried.sum() ** 2 / math.fsum(1 / total[tried])
    return wilson_interval(float(recalls.mean()) * effective, effective)


def group_indices(groups: Any, num_items: int) -> tuple[list[Hashable], Int[np.ndarray, " items"]]:
    """Distinct specimen ids in a fixed order, and the position of each item's id among them.

    Raises:
        ValueError: there are more or fewer ids than items.
    """
    keys = [key.item() if isinstance(key, np.generic) else key for key in groups]
    if len(keys) != num_items:
        raise ValueError(f"{num_items} items but {len(keys)} specimen ids")
    distinct = sorted(set(keys), key=repr)
    position = {key: index for index, key in enumerate(distinct)}
    return distinct, np.array([position[key] for key in keys], np.int64)


def bootstrap_weights(strata: Int[np.ndarray, " units"], samples: int, seed: int) -> Int[np.ndarray, "samples units"]:
    """How often each unit is drawn in each resample; strata keep their sizes."""
    random = np.random.default_rng(seed)
    weights = np.zeros((samples, strata.size), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = random.multinomial(members.size, np.full(members.size, 1 / members.size), samples)
    return weights


def percentile_interval(values: Float[np.ndarray, " samples"]) -> Interval:
    """The middle 95 % of the values that are defined; None if none is."""
    finite = values[np.isfinite(values)]
    return [float(end) for end in np.percentile(finite, (2.5, 97.5))] if finite.size else None


def containing(interval: Interval, value: float) -> Interval:
    """The interval, widened where needed to contain the figure itself."""
    return interval and [min(interval[0], value), max(interval[1], value)]


def ratio(numerator: Any, denominator: Any, undefined: float = math.nan) -> Any:
    """Elementwise quotient in float64; `undefined` where the denominator is 0."""
    positive = np.asarray(denominator) > 0
    return np.where(positive, np.asarray(numerator, np.float64) / np.where(positive, denominator, 1), undefined)
