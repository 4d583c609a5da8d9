import dataclasses

import numpy as np
import pytest

from hep2jax.metrics import calibration, to_dict
from hep2jax.metrics.calibration import Kept


def test_calibration_error_by_hand():
    # Two bins: (0.2 + 0.4) / 2 = 0.3 of which one of two is right; 0.9 of which both are right.
    found = calibration.reliability(np.array([0.2, 0.4, 0.9, 0.9]), np.array([True, False, True, True]), bins=2)
    assert [(b.count, b.accuracy) for b in found.bins] == [(2, 0.5), (2, 1.0)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.3, 0.9])
    assert found.ece == pytest.approx((2 * 0.2 + 2 * 0.1) / 4)
    assert calibration.reliability(np.array([1.0]), np.array([True])).ece == 0.0


def test_the_temperature_of_probabilities_that_were_sharpened_is_found():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.full(4, 0.7), 6000)
    truth = np.array([rng.choice(4, p=row) for row in honest])
    sharp = calibration.scaled(honest, 1 / 3, 1e-12)
    assert calibration.fit_temperature(sharp, truth, 1e-12) == pytest.approx(3.0, rel=0.05)
    assert calibration.fit_temperature(honest, truth, 1e-12) == pytest.approx(1.0, rel=0.05)
    right, before = sharp.argmax(1) == truth, sharp.max(1)
    after = calibration.scaled(sharp, 3.0, 1e-12).max(1)
    assert calibration.reliability(after, right).ece < 0.02 < calibration.reliability(before, right).ece


def test_a_temperature_by_hand():
    # Two patterns, odds 9 : 1 each time and all three right: by Platt's targets 4 / 5, odds 4 = 9 ** (1 / T).
    values = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    found = calibration.fit_temperature(values, np.array([0, 1, 0]), 1e-12)
    assert found == pytest.approx(np.log(9) / np.log(4), rel=1e-3)
    np.testing.assert_allclose(calibration.scaled(values, found, 1e-12).max(1), 0.8, atol=1e-3)
    with pytest.raises(ValueError, match="at least one example"):
        calibration.fit_temperature(values[:0], np.zeros(0, int), 1e-12)


def test_scaling_keeps_the_decision_and_the_sum():
    values = np.random.default_rng(1).dirichlet(np.ones(5), 50)
    for temperature in (0.1, 1.0, 10.0):
        scaled = calibration.scaled(values, temperature, 1e-4)
        np.testing.assert_allclose(scaled.sum(1), 1.0)
        np.testing.assert_array_equal(scaled.argmax(1), values.argmax(1))
    np.testing.assert_allclose(calibration.scaled(np.array([[1.0, 0.0]]), 1.0, 0.25), [[0.8, 0.2]])


def test_what_is_kept_by_hand():
    confidence, right = np.array([0.9, 0.6, 0.8, 0.6]), np.array([True, True, False, False])
    curve = calibration.coverage_curve(confidence, right)
    assert curve == (
        Kept(confidence=0.6, coverage=1.0, accuracy=0.5),
        Kept(confidence=0.8, coverage=0.5, accuracy=0.5),
        Kept(confidence=0.9, coverage=0.25, accuracy=1.0),
    )
    assert calibration.kept_above(confidence, right, 0.7) == dataclasses.replace(curve[1], confidence=0.7)
    assert calibration.kept_above(confidence, right, 0.95) is None
    assert calibration.least_confidence(confidence, right, 0.95) == 0.9
    assert calibration.least_confidence(confidence, right, 0.5) == 0.6
    assert calibration.least_confidence(confidence, ~right & False, 0.95) == 1.0
    assert len(calibration.coverage_curve(np.linspace(0, 1, 500), np.ones(500, bool), limit=20)) == 20


def test_auroc_by_hand():
    # Of the four pairs 3 > 1, 2 > 1, 3 > 2 count one, 2 = 2 one half.
    assert calibration.auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)
    assert calibration.auroc(np.array([1, 2]), np.array([0])) == 0.0
    with pytest.raises(ValueError, match="both kinds"):
        calibration.auroc(np.array([1.0]), np.zeros(0))


def test_few_examples_err_by_chance():
    assert calibration.error_by_chance(np.ones(10)) == 0.0
    few, many = (calibration.error_by_chance(np.full(n, 0.8)) for n in (10, 4000))
    # One bin: the mean of |share - 0.8| over binomial shares, sqrt(2 / pi) deviations.
    assert few == pytest.approx(np.sqrt(2 / np.pi * 0.16 / 10), rel=0.15)
    assert many < 0.01


def test_the_reliability_in_json():
    found = calibration.reliability(np.array([0.9]), np.array([False]))
    assert to_dict(found) == {"ece": 0.9, "bins": [{"confidence": 0.9, "accuracy": 0.0, "count": 1}]}
