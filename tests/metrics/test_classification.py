"""Classification against published and hand-computed values, and under what must not move the metrics."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from hep2jax import metrics
from hep2jax.metrics import intervals
from hep2jax.metrics.classification import ClassMetrics, describe_recalls

PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "numem", "golgi")


def _cascio():
    """83 specimens, 16/16/16/16/15/4, wrong: one of Golgi and one in each of two classes of 16 (METHODS, C3)."""
    truth = np.repeat(np.arange(6), (16, 16, 16, 16, 15, 4))
    prediction = truth.copy()
    prediction[[0, 16, 82]] = 3
    return truth, prediction


class TestClassification:
    def test_published_example(self):
        report = metrics.classification_metrics(*_cascio(), range(83), PATTERNS)
        assert report.aca.value == 80 / 83
        assert report.mca.value == pytest.approx(0.9375, abs=1e-15)
        np.testing.assert_allclose(report.aca.ci95, [0.899, 0.988], atol=5e-4)
        assert report.ci_method == intervals.TRIALS
        assert report.per_class["golgi"] == ClassMetrics(recall=0.75, precision=1.0, support=4)
        assert report.per_class["centromere"] == ClassMetrics(recall=1.0, precision=16 / 19, support=16)
        assert report.confusion[5] == (0, 0, 0, 1, 0, 3)
        assert (report.num_examples, report.num_specimens, report.num_undecided) == (83, 83, 0)

    @pytest.mark.parametrize(("right", "total"), [(80, 83), (0, 7), (7, 7), (1, 2), (14, 24)])
    def test_wilson_against_scipy(self, right, total):
        expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(intervals.score_interval(right / total, total), expected, atol=1e-12)

    def test_mean_recall_of_equal_classes_is_wilson_of_all_trials(self):
        interval = intervals.trials_interval(np.array([3, 4, 4, 2]), np.full(4, 4), np.full(4, 0.25))
        np.testing.assert_allclose(interval, intervals.score_interval(13 / 16, 16), atol=1e-12)

    def test_width_remains_at_all_right(self):
        truth = np.repeat(np.arange(6), 4)
        report = metrics.classification_metrics(truth, truth, range(24), PATTERNS)
        assert report.aca.value == report.mca.value == 1.0
        assert report.aca.ci95 == (pytest.approx(24 / (24 + 1.959964**2), abs=1e-6), 1.0)
        assert 0.7 < report.mca.ci95[0] < 0.95
        assert report.mca.ci95[1] == 1.0

    def test_mca_over_the_classes_that_occur(self):
        report = metrics.classification_metrics([0, 0, 0, 2], [0, 0, 1, 2], "abcd", ("x", "y", "z"))
        assert report.aca.value == 0.75
        assert report.mca.value == pytest.approx(5 / 6, abs=1e-15)
        assert report.per_class["y"] == ClassMetrics(recall=None, precision=0.0, support=0)
        assert describe_recalls(report) == "recall: x 0.667, z 1.000"
        json.dumps(metrics.to_dict(report), allow_nan=False)

    def test_no_decision_is_an_error(self):
        report = metrics.classification_metrics([0, 1, 1], [None, 1, -1], "abc", ("x", "y"))
        assert report.aca.value == 1 / 3
        assert report.mca.value == 0.25
        assert report.confusion == ((0, 0), (0, 1))
        assert report.per_class["y"].support == 2
        assert report.num_undecided == 2

    def test_brute_force(self):
        for seed in range(30):
            rng = np.random.default_rng(seed)
            truth, prediction = rng.integers(0, 4, (2, 50))
            report = metrics.classification_metrics(truth, prediction, rng.integers(0, 9, 50), "abcd")
            recalls = [(prediction[truth == k] == k).mean() for k in range(4) if (truth == k).any()]
            assert report.aca.value == (truth == prediction).mean()
            assert report.mca.value == pytest.approx(np.mean(recalls), abs=1e-15)
            for i, j in itertools.product(range(4), range(4)):
                assert report.confusion[i][j] == ((truth == i) & (prediction == j)).sum()

    def test_order_of_items_does_not_matter(self):
        rng = np.random.default_rng(1)
        specimen = rng.integers(0, 18, 300)
        truth = specimen % 6
        prediction = np.where(rng.random(300) < 0.8, truth, rng.integers(0, 6, 300))
        order = rng.permutation(300)
        one = metrics.classification_metrics(truth, prediction, specimen, PATTERNS)
        other = metrics.classification_metrics(truth[order], prediction[order], specimen[order], PATTERNS)
        assert one == other
        assert one.ci_method == intervals.CLUSTERED
        assert one.num_specimens == 18

    def test_cells_of_a_specimen_are_not_independent(self):
        """Specimens wholly right or wrong: 400 cells carry the information of 40 specimens, and no more."""
        specimen = np.repeat(np.arange(40), 10)
        truth = specimen % 2
        prediction = np.where(specimen % 5 == 0, 1 - truth, truth)
        by_cell = metrics.classification_metrics(truth, prediction, specimen, "ab")
        by_specimen = metrics.classification_metrics(truth[::10], prediction[::10], range(40), "ab")
        assert by_cell.aca.value == by_specimen.aca.value == 0.8
        np.testing.assert_allclose(np.diff(by_cell.aca.ci95), np.diff(by_specimen.aca.ci95), rtol=0.15)
        naive = np.diff(intervals.score_interval(0.8, 400))
        assert np.diff(by_cell.aca.ci95) > 2.5 * naive

    def test_specimens_that_agree_are_one_trial_each(self):
        specimen = np.repeat(np.arange(8), 5)
        all_right = metrics.classification_metrics(specimen % 2, specimen % 2, specimen, "ab")
        assert all_right.ci_method == intervals.CLUSTERED
        low, high = all_right.aca.ci95
        assert (low, high) == (pytest.approx(8 / (8 + stats.t.ppf(0.975, 6) ** 2)), 1)

    def test_one_specimen_of_a_class(self):
        """Each is a trial, won by its share; where a class has two specimens, their spread stands for all."""
        wrong = np.isin(np.arange(15), (1, 14))
        for truth, method in (
            (np.repeat([0, 1, 2], 5), intervals.TRIALS),
            (np.repeat([0, 0, 1], 5), intervals.CLUSTERED),
        ):
            read = np.where(wrong, (truth + 1) % 3, truth)
            report = metrics.classification_metrics(truth, read, np.repeat([0, 1, 2], 5), "abc")
            assert report.ci_method == method
            assert report.mca.ci95[0] < report.mca.value < report.mca.ci95[1]
        lone = metrics.classification_metrics([0] * 5 + [1] * 5, [0] * 9 + [1], [0] * 5 + [1] * 5, "ab")
        np.testing.assert_allclose(lone.aca.ci95, intervals.score_interval(0.6, 2))

    def test_no_items(self):
        report = metrics.classification_metrics([], [], [], ("x", "y"))
        assert report.aca.value is report.mca.value is report.aca.ci95 is report.mca.ci95 is None
        assert report.num_examples == report.num_specimens == 0

    @pytest.mark.parametrize(
        ("truth", "prediction", "groups", "message"),
        [
            ([0, 1], [0], "ab", "2 true classes but 1 predicted"),
            ([0, 1], [0, 1], "a", "2 items but 1 specimen ids"),
            ([0, 2], [0, 1], "ab", r"truth: class 0\.\.2 outside 0\.\.1"),
            ([0, -1], [0, 1], "ab", "truth: class -1"),
            ([0, 1], [0, -2], "ab", "prediction: class -2"),
        ],
    )
    def test_wrong_input(self, truth, prediction, groups, message):
        with pytest.raises(ValueError, match=message):
            metrics.classification_metrics(truth, prediction, groups, ("x", "y"))
