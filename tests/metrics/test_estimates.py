"""Estimates in words and as numbers, and how their arithmetic treats 0/0."""

import numpy as np
import pytest

from hep2jax.metrics.estimates import Estimate, Interval, defined_values, exact_mean, finite_or_none, ratio


def test_an_estimate_in_words():
    assert str(Estimate(value=0.9124, ci95=Interval(0.88, 0.9366))) == "0.912 [0.880, 0.937]"
    assert str(Estimate(value=1.0)) == "1.000"
    assert str(Estimate(value=None)) == "undefined"


def test_an_undefined_estimate_is_no_number():
    assert float(Estimate(value=0.25)) == 0.25
    with pytest.raises(ValueError, match="undefined"):
        float(Estimate(value=None))
    assert defined_values({"aca": Estimate(value=0.0), "mca": Estimate(value=None)}) == {"aca": 0.0}


def test_nothing_is_divided_by_zero():
    np.testing.assert_array_equal(ratio([1, 0], [4, 0]), [0.25, np.nan])
    np.testing.assert_array_equal(ratio([1, 0], [4, 0], undefined=1.0), [0.25, 1.0])
    assert finite_or_none(np.nan) is finite_or_none(np.inf) is exact_mean(np.zeros(0)) is None


def test_the_mean_is_exact():
    values = np.array([1e16, 1.0, -1e16])
    assert exact_mean(values) == exact_mean(values[::-1]) == 1 / 3
