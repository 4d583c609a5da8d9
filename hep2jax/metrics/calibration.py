"""How far a stated confidence can be relied on: temperature scaling, reliability, coverage against accuracy, AUROC.

A confidence is calibrated if, of the examples that have the confidence c, the share c is right.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# (scipy has no type stubs)

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import optimize, special, stats

from hep2jax.metrics.grouping import evenly_spread
from hep2jax.metrics.serialise import OMIT_EMPTY

NUM_BINS = 15
_TEMPERATURES = (0.05, 20.0)
_MOST_POINTS = 100

Probabilities = Float[np.ndarray, "example pattern"]
"""One row for each example, not negative, with sum 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """The examples whose confidence is in one interval."""

    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that is right."""
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """The examples that are left if those of low confidence are referred to a reader."""

    confidence: float
    """The least confidence of those that are kept."""
    coverage: float
    """The share of all examples that is kept."""
    accuracy: float
    """The share of the kept examples that is right."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """How the confidences of some examples agree with how often they are right."""

    ece: float
    bins: tuple[Bin, ...]
    """The bins of `reliability_bins` that hold an example."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationMetrics:
    """How well a network knows what it knows, on one split."""

    unit: str
    """Word for an example, in the singular."""
    num_examples: int
    num_specimens: int | None
    """None if specimens are unknown."""
    in_sample: bool
    """Whether temperature and thresholds were set on these examples."""
    temperature: tuple[float, ...]
    """One value, or one for each pattern if an image may have several."""
    before: Reliability
    """With the probabilities, or the shares of the votes, as they are."""
    after: Reliability
    """With the temperature."""
    ece_by_chance: float
    """See `error_by_chance`: what `after.ece` would be on average if the confidences were exactly right."""
    curve: tuple[Kept, ...]
    """What is kept with rising thresholds of the calibrated confidence."""
    refer_below: float
    """The confidence below which an example is referred to a reader."""
    kept: Kept | None
    """With this threshold; None if every example is referred."""
    num_novel: int | None = dataclasses.field(default=None, metadata=OMIT_EMPTY)
    """How many examples are said to be unlike the training images."""
    num_faint: int | None = dataclasses.field(default=None, metadata=OMIT_EMPTY)
    """How many examples are said to be fainter than the training images."""


def describe(found: CalibrationMetrics) -> str:
    """One line: the calibration error, and what is kept."""
    sample = ", in-sample" if found.in_sample else ""
    kept = "every one is referred to a reader"
    if found.kept:
        kept = (
            f"{found.kept.coverage:.0%} kept with confidence ≥ {found.refer_below:.2f}, {found.kept.accuracy:.3f} right"
        )
    chance = f"by chance alone {found.ece_by_chance:.3f}"
    return f"ECE {found.after.ece:.3f} (uncalibrated {found.before.ece:.3f}, {chance}{sample}); {kept}"


def scaled(probabilities: Probabilities, temperature: float, least: float) -> Probabilities:
    """The softmax of log(probability) / temperature, with `least` in place of smaller probabilities; float64."""
    return np.exp(special.log_softmax(_logarithms(probabilities, least) / temperature, axis=1))


def _logarithms(probabilities: Probabilities, least: float) -> Probabilities:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), least))


def fit_temperature(probabilities: Probabilities, truth: Int[np.ndarray, " example"], least: float) -> float:
    """The temperature in [0.05, 20] that minimises the negative log-likelihood (Guo et al., ICML 2017).

    The targets are those of Platt (Advances in Large Margin Classifiers, 1999): with n examples the truth has the
    probability (n + 1) / (n + 2), so that validation examples without an error do not make the network certain.

    Raises:
        ValueError: there is no example.
    """
    num, patterns = probabilities.shape
    if not num:
        raise ValueError("a temperature needs at least one example")
    logarithms, rest = _logarithms(probabilities, least), 1 / (num + 2)
    targets = np.full((num, patterns), rest / max(patterns - 1, 1))
    targets[np.arange(num), truth] = 1 - rest

    def loss(logarithm: float) -> float:
        return -float(np.sum(targets * special.log_softmax(logarithms / np.exp(logarithm), axis=1)) / num)

    found: Any = optimize.minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def reliability(
    confidence: Num[np.ndarray, " example"], right: Bool[np.ndarray, " example"], bins: int = NUM_BINS
) -> Reliability:
    """Bins of equal width, and the expected calibration error over them (Naeini et al., AAAI 2015).

    ECE is the mean over the examples of |accuracy - mean confidence| of their bin; `error_by_chance` says how much of
    it comes from there being few examples.
    """
    number = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    members = [(number == k) for k in range(bins)]
    found = tuple(
        Bin(confidence=float(confidence[m].mean()), accuracy=float(right[m].mean()), count=int(m.sum()))
        for m in members
        if m.any()
    )
    total = max(sum(b.count for b in found), 1)
    return Reliability(ece=sum(b.count * abs(b.accuracy - b.confidence) for b in found) / total, bins=found)


def error_by_chance(confidence: Num[np.ndarray, " example"], draws: int = 200) -> float:
    """The mean ECE of examples that are right exactly as often as their confidence says: the error of few examples."""
    rng = np.random.default_rng(0)
    return float(np.mean([reliability(confidence, rng.random(len(confidence)) < confidence).ece for _ in range(draws)]))


def coverage_curve(
    confidence: Num[np.ndarray, " example"], right: Bool[np.ndarray, " example"], limit: int = _MOST_POINTS
) -> tuple[Kept, ...]:
    """What is kept with each confidence that occurs as the threshold, the lowest first; at most `limit` of them."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, hits = confidence[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True)) if len(order) else np.zeros(0, int)
    return tuple(
        Kept(
            confidence=float(sorted_confidence[k]),
            coverage=float((k + 1) / len(order)),
            accuracy=float(hits[k] / (k + 1)),
        )
        for k in reversed(evenly_spread(last.tolist(), limit))
    )


def kept_above(
    confidence: Num[np.ndarray, " example"], right: Bool[np.ndarray, " example"], threshold: float
) -> Kept | None:
    """The examples with at least this confidence; None if there are none."""
    above = confidence >= threshold
    if not above.any():
        return None
    return Kept(confidence=float(threshold), coverage=float(above.mean()), accuracy=float(right[above].mean()))


def least_confidence(
    confidence: Num[np.ndarray, " example"], right: Bool[np.ndarray, " example"], accuracy: float
) -> float:
    """The lowest confidence for which the examples with at least this confidence have this accuracy; 1 if none has."""
    kept = coverage_curve(confidence, right, limit=len(confidence))
    return next((point.confidence for point in kept if point.accuracy >= accuracy), 1.0)


def auroc(inside: Num[np.ndarray, " inside"], outside: Num[np.ndarray, " outside"]) -> float:
    """The probability that the score of something outside is higher than that of something inside; ties count half.

    Raises:
        ValueError: either is empty.
    """
    if not len(inside) or not len(outside):
        raise ValueError("AUROC needs examples of both kinds")
    ranks = stats.rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))
