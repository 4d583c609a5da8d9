"""Intervals: coverage on data shaped like the real specimens, limits with known values, and specimens that repeat."""

import numpy as np
import pytest
from scipy import stats

from hep2jax import metrics
from hep2jax.metrics import intervals
from hep2jax.metrics.estimates import estimates_of
from scripts import simulate_coverage

ICPR2012 = np.concatenate(simulate_coverage.DESIGNS[14])
PATTERN = np.repeat(np.arange(6), [len(own) for own in simulate_coverage.DESIGNS[14]])


@pytest.mark.parametrize("recall", [0.6, 0.8])
def test_cells_of_fourteen_specimens_are_covered(recall):
    """Through the report itself; the percentile bootstrap covered 81 to 83 %."""
    rng = np.random.default_rng(0)
    specimen = np.repeat(np.arange(14), ICPR2012)
    place = np.arange(specimen.size) - np.repeat(np.cumsum(ICPR2012) - ICPR2012, ICPR2012)
    held = {"aca": 0, "mca": 0}
    for _ in range(300):
        right = rng.binomial(ICPR2012, rng.beta(2 * recall, 2 - 2 * recall, 14))
        read = np.where(place < right[specimen], PATTERN[specimen], (PATTERN[specimen] + 1) % 6)
        report = metrics.classification_metrics(PATTERN[specimen], read, specimen, "abcdef")
        for name in held:
            low, high = estimates_of(report)[name].ci95
            held[name] += low <= recall <= high
    for name, count in held.items():
        assert 0.92 < count / 300 < 0.985, name


@pytest.mark.parametrize("kind", ["specimens", "pixels", "labels", "gain"])
@pytest.mark.parametrize("number", [14, 83])
def test_the_other_kinds_are_covered(kind, number):
    """The first usual population of each kind, coarsely; the whole simulation is the slow test."""
    population = next(p for p in simulate_coverage.POPULATIONS[kind](number) if p.usual)
    for row in simulate_coverage.cover(population, 300 if number == 14 else 200):
        assert 0.92 < row.share < 0.995, row


@pytest.mark.slow
def test_every_usual_population_is_covered():
    for kind, populations in simulate_coverage.POPULATIONS.items():
        for number in simulate_coverage.DESIGNS:
            rows = [r for p in populations(number) if p.usual for r in simulate_coverage.cover(p, 400)]
            for name in {row.kind for row in rows}:
                shares = [row.share for row in rows if row.kind == name]
                assert 0.93 < np.mean(shares) < 0.985, (kind, number, name)
                assert min(shares) > 0.89, (kind, number, name)


def test_clustered_is_students_interval_where_there_is_much_to_see():
    """One class of 400 specimens of equal size: the interval of their mean, except for Wilson's shift."""
    shares = np.random.default_rng(0).beta(6, 4, 400)
    low, high = intervals.clustered_interval(100 * shares[:, None], np.full((400, 1), 100.0), np.ones(1))
    expected = stats.t.interval(0.95, 399, shares.mean(), stats.sem(shares))
    np.testing.assert_allclose([low, high], expected, atol=2e-3)


def test_clustered_all_or_nothing_specimens_are_trials():
    """Forty specimens of a class, each wholly right or wrong, are forty trials, whatever their cells."""
    won = (np.arange(40) % 5 > 0)[:, None]
    interval = intervals.clustered_interval(30.0 * won, np.full((40, 1), 30.0), np.ones(1))
    np.testing.assert_allclose(interval, intervals.score_interval(0.8, 40, stats.t.ppf(0.975, 39)), atol=1e-12)


def test_a_small_class_read_otherwise_widens_the_mean_recall():
    """Four golgi specimens that differ weigh as much in MCA as sixteen of each other class that agree."""
    pattern = np.repeat(np.arange(6), (16, 16, 16, 16, 15, 4))
    items = 100.0 * np.eye(6)[pattern]
    share = np.where(pattern == 5, (np.arange(83) % 2) * 0.8 + 0.1, 0.95)
    mca = intervals.clustered_interval(items * share[:, None], items, np.ones(6))
    aca = intervals.clustered_interval(items * share[:, None], items, items.sum(0))
    assert np.ptp(mca) > 1.5 * np.ptp(aca)


def test_jackknife_of_a_mean_is_students():
    values = np.random.default_rng(0).beta(6, 4, 83)
    without = (values.sum() - values) / 82
    expected = stats.t.interval(0.95, 82, values.mean(), stats.sem(values))
    np.testing.assert_allclose(intervals.jackknife_interval(values.mean(), without), expected, atol=5e-3)


def test_a_metric_of_one_specimen_alone_has_no_interval():
    assert intervals.jackknife_interval(0.9, np.array([np.nan, 0.9])) is None
    assert intervals.jackknife_interval(0.9, np.array([0.9])) is None
    assert intervals.jackknife_interval(np.nan, np.array([0.9, 0.9])) is None


def test_paired_differences():
    differences = np.array([0.25, -0.25, 0.5, 0, 0, 0.25, 0, 0.5, -0.25, 0])
    low, high = intervals.paired_interval(differences)
    np.testing.assert_allclose([low, high], stats.t.interval(0.95, 9, 0.1, stats.sem(differences)), atol=0.05)
    none = intervals.paired_interval(np.zeros(32))
    assert none[0] < 0 < none[1]
    assert none[1] == pytest.approx(-none[0])
    assert intervals.paired_interval(np.zeros(0)) is None
