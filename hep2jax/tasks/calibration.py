"""What a work directory knows of its network's confidence: `calibration.json`, and the verdicts that follow from it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hep2jax.data.sets.appearance import Detector, Look
from hep2jax.metrics import calibration as measures
from hep2jax.metrics.calibration import CalibrationMetrics

FILE = "calibration.json"
UNCALIBRATED = "uncalibrated"
FAINT = "fainter than the images that the network was trained on: negative, or exposed too short"
UNLIKE = "not like the images that the network was trained on"
REFER = "refer to a reader"
NEGATIVE = "negative"
ACCURACY_OF_KEPT = 0.95
_LEAST_CONFIDENCE = 0.5  # what is more likely wrong than right is never kept
LEAST_SHARE, LEAST_PROBABILITY = 1e-4, 1e-12
"""Smaller shares of votes and smaller probabilities are raised to these before their logarithm is taken."""


class Outcome(NamedTuple):
    """What a network said of one example, as its reader says it of a user's image, and what is true."""

    probabilities: Float[np.ndarray, " pattern"]
    truth: int | Int[np.ndarray, " pattern"]
    """A pattern; 0 or 1 for each pattern if an example may have several."""
    specimen: str
    """The specimens that are one, if any repeat each other; empty if it is not known."""


class Verdict(NamedTuple):
    """The judgement of one reading."""

    confidence: float
    novelty: float
    words: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a calibration was fitted for."""

    step: int
    trained_on: str
    """Fingerprint of the training examples."""
    validated_on: str
    """Fingerprint of the validation examples."""
    settings: str
    """Fingerprint of the evaluation settings."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """How the probabilities of one network become confidences, and when an image is left to a reader."""

    identity: Identity
    temperature: tuple[float, ...]
    """One value; one for each pattern if an image may have several."""
    least: float
    """See `LEAST_SHARE`."""
    several: bool
    """Whether an image may have several patterns."""
    pattern_threshold: float
    """See `EvaluationConfig.pattern_threshold`; unused if an image has one pattern."""
    refer_below: float
    knows_negatives: bool
    """Whether training images without a pattern taught the network what is negative."""
    detector: Detector
    validation: dict[str, Any]
    """For people: on how many examples it was fitted, and the errors before and after, which are in-sample."""

    def confidence(self, probabilities: Float[np.ndarray, "example pattern"]) -> Float[np.ndarray, " example"]:
        """The calibrated probability that the decision is right, float64: 0 where no cell was found.

        If an image may have several patterns, the decision is right if all its patterns are; they count as independent.
        """
        values = np.asarray(probabilities, np.float64)
        if not self.several:
            tempered = measures.scaled(values, self.temperature[0], self.least)
            decided = np.take_along_axis(tempered, values.argmax(axis=1)[:, None], axis=1)[:, 0]
            return np.where(values.any(axis=1), decided, 0.0)
        present = np.stack(
            [
                measures.scaled(np.stack([1 - values[:, k], values[:, k]], axis=1), temperature, self.least)[:, 1]
                for k, temperature in enumerate(self.temperature)
            ],
            axis=1,
        )
        return np.where(values >= self.pattern_threshold, present, 1 - present).prod(axis=1)

    def judge(self, probabilities: Float[np.ndarray, " pattern"], looks: Sequence[Look]) -> Verdict:
        """The verdict on a reading of the fields of one specimen, which look like this: the least alike one counts."""
        confidence = float(self.confidence(probabilities[None])[0])
        novelty = max(look.novelty for look in looks)
        if all(look.is_faint for look in looks):
            words = FAINT
        elif novelty > 1:
            words = UNLIKE
        elif confidence < self.refer_below:
            words = REFER
        else:
            has_pattern = (probabilities >= self.pattern_threshold).any() or not self.several
            words = NEGATIVE if self.knows_negatives and not has_pattern else ""
        return Verdict(confidence, novelty, words)

    def measure(
        self,
        outcomes: Sequence[Outcome],
        pictures: Sequence[UInt8[np.ndarray, "_ _"]],
        *,
        unit: str,
        in_sample: bool,
    ) -> CalibrationMetrics:
        """How well the confidences hold on some examples; `pictures` are those of some or all of them."""
        values = np.stack([outcome.probabilities for outcome in outcomes])
        right, confidence = self._right(outcomes), self.confidence(values)
        looks = [self.detector.look(picture) for picture in pictures]
        specimens = {outcome.specimen for outcome in outcomes}
        return CalibrationMetrics(
            unit=unit,
            num_examples=len(outcomes),
            num_specimens=None if "" in specimens else len(specimens),
            in_sample=in_sample,
            temperature=self.temperature,
            before=measures.reliability(self._uncalibrated(values), right),
            after=measures.reliability(confidence, right),
            ece_by_chance=measures.error_by_chance(confidence),
            curve=measures.coverage_curve(confidence, right),
            refer_below=self.refer_below,
            kept=measures.kept_above(confidence, right, self.refer_below),
            num_novel=sum(look.novelty > 1 for look in looks),
            num_faint=sum(look.is_faint for look in looks),
        )

    def _uncalibrated(self, values: np.ndarray) -> np.ndarray:
        if not self.several:
            return values.max(axis=1)
        return np.where(values >= self.pattern_threshold, values, 1 - values).prod(axis=1)

    def _right(self, outcomes: Sequence[Outcome]) -> Bool[np.ndarray, " example"]:
        if self.several:
            decided = [(outcome.probabilities >= self.pattern_threshold) == outcome.truth for outcome in outcomes]
            return np.array([bool(np.all(row)) for row in decided])
        return np.array([o.probabilities.any() and o.probabilities.argmax() == o.truth for o in outcomes], bool)

    def with_threshold(self, refer_below: float) -> "Calibration":
        """The same with another confidence below which an image is referred; -1 keeps the one of the validation."""
        return self if refer_below < 0 else dataclasses.replace(self, refer_below=refer_below)

    def to_record(self) -> dict[str, Any]:
        """The calibration for JSON."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {
            "identity": dataclasses.asdict(self.identity),
            "temperature": list(self.temperature),
            "detector": self.detector.to_record(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Inverse of `to_record`.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: the record is not one of a calibration.
        """
        values: dict[str, Any] = record | {
            "identity": Identity(**record["identity"]),
            "temperature": tuple(float(value) for value in record["temperature"]),
            "detector": Detector.from_record(record["detector"]),
        }
        read = cls(**values)
        if not read.temperature or not all(0 < value < np.inf for value in read.temperature):
            raise ValueError("a temperature is not positive")
        if not 0 <= read.refer_below <= 1 or not 0 < read.least < 1:
            raise ValueError("a threshold is not a probability")
        return read


def fit(
    outcomes: Sequence[Outcome], detector: Detector, *, identity: Identity, least: float, several: bool, **facts: Any
) -> Calibration:
    """The calibration of a network from the outcomes of its validation examples.

    Args:
        outcomes: of all validation examples, of which there is at least one.
        detector: see `Detector.fit`.
        identity: what the calibration is for.
        least: see `LEAST_SHARE`.
        several: whether an example may have several patterns.
        facts: further attributes of the calibration.
    """
    made = Calibration(
        identity=identity,
        temperature=_temperatures(outcomes, least, several),
        least=least,
        several=several,
        refer_below=0.0,
        detector=detector,
        validation={},
        **facts,
    )
    confidence = made.confidence(np.stack([outcome.probabilities for outcome in outcomes]))
    threshold = measures.least_confidence(confidence, made._right(outcomes), ACCURACY_OF_KEPT)
    made = made.with_threshold(max(threshold, _LEAST_CONFIDENCE))
    found = made.measure(outcomes, [], unit="example", in_sample=True)
    about = {
        "num_examples": found.num_examples,
        "num_specimens": found.num_specimens,
        "ece_before": found.before.ece,
        "ece_after": found.after.ece,
        "in_sample": True,
    }
    return dataclasses.replace(made, validation=about)


def _temperatures(outcomes: Sequence[Outcome], least: float, several: bool) -> tuple[float, ...]:
    """The fitted temperatures; examples in which no cell was found say nothing about them."""
    if several:
        values = np.stack([outcome.probabilities for outcome in outcomes])
        truth = np.stack([np.asarray(outcome.truth) for outcome in outcomes])
        pairs = (np.stack([1 - values[:, k], values[:, k]], axis=1) for k in range(values.shape[1]))
        return tuple(measures.fit_temperature(pair, truth[:, k], least) for k, pair in enumerate(pairs))
    decided = [outcome for outcome in outcomes if outcome.probabilities.any()]
    if not decided:
        return (1.0,)
    truth = np.array([outcome.truth for outcome in decided])
    return (measures.fit_temperature(np.stack([o.probabilities for o in decided]), truth, least),)
