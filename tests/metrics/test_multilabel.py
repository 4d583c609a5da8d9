"""Metrics of several patterns an image: against scikit-learn, against hand-computed values, and their intervals."""

import json
import warnings

import numpy as np
import pytest

from hep2jax.metrics.estimates import estimates_of
from hep2jax.metrics.multilabel import average_precisions, multilabel_metrics
from hep2jax.metrics.serialise import to_dict

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference here")

PATTERNS = ("AC-1", "AC-4", "AC-5", "AC-21")


def made_up(seed=0, items=60, patterns=4, levels=8):
    """Truths with mixed and with no patterns, probabilities with many ties."""
    rng = np.random.default_rng(seed)
    truth = rng.random((items, patterns)) < 0.3
    return truth, rng.integers(0, levels, truth.shape) / (levels - 1)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_scikit_learn_s(seed):
    truth, scores = made_up(seed)
    measured = multilabel_metrics(truth, scores, range(60), PATTERNS)
    decided = scores >= 0.5
    assert measured.mAP.value == pytest.approx(sklearn.average_precision_score(truth, scores, average="macro"))
    for mean in ("micro", "macro"):
        f1 = estimates_of(measured)[f"f1_{mean}"]
        assert f1.value == pytest.approx(sklearn.f1_score(truth, decided, average=mean))
    assert measured.exact_match.value == pytest.approx(sklearn.accuracy_score(truth, decided))
    assert measured.hamming.value == pytest.approx(sklearn.hamming_loss(truth, decided))
    for k, name in enumerate(PATTERNS):
        row = measured.per_class[name]
        assert row.average_precision == pytest.approx(sklearn.average_precision_score(truth[:, k], scores[:, k]))
        assert row.f1 == pytest.approx(sklearn.f1_score(truth[:, k], decided[:, k]))
        assert row.support == truth[:, k].sum()


def test_weighted_average_precision_is_that_of_repeated_items():
    truth, scores = made_up(3)
    weights = np.random.default_rng(1).integers(0, 4, (6, 60)).astype(np.float32)
    expected = [
        [sklearn.average_precision_score(truth[:, k], scores[:, k], sample_weight=row) for k in range(4)]
        for row in weights
    ]
    np.testing.assert_allclose(average_precisions(truth, scores, weights), expected)


def test_by_hand():
    truth = [[1, 0], [1, 1], [0, 0], [0, 1]]
    scores = [[0.9, 0.1], [0.2, 0.6], [0.3, 0.2], [0.1, 0.7]]
    measured = multilabel_metrics(truth, scores, "abcd", ("one", "two"))
    assert measured.per_class["one"].average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert measured.per_class["two"].average_precision == 1
    assert measured.f1_micro.value == pytest.approx(2 * 3 / (3 + 4))
    assert measured.f1_macro.value == pytest.approx((2 / 3 + 1) / 2)
    assert (measured.exact_match.value, measured.hamming.value) == (3 / 4, 1 / 8)
    strict = multilabel_metrics(truth, scores, "abcd", ("one", "two"), threshold=0.65)
    assert (strict.exact_match.value, strict.hamming.value) == (3 / 4, 2 / 8)


def test_a_pattern_that_no_image_has_is_left_out_of_the_means():
    truth, scores = made_up(1)
    truth[:, 2] = False
    measured = multilabel_metrics(truth, scores, range(60), PATTERNS)
    kept = [0, 1, 3]
    assert measured.mAP.value == pytest.approx(sklearn.average_precision_score(truth[:, kept], scores[:, kept]))
    assert measured.f1_macro.value == pytest.approx(
        sklearn.f1_score(truth[:, kept], scores[:, kept] >= 0.5, average="macro")
    )
    assert measured.per_class["AC-5"].average_precision is None


def test_intervals_leave_out_specimens():
    """Five copies of every image, of one specimen, say no more than one; as specimens of their own they would."""
    truth, scores = made_up(2, items=40)
    scores = 0.5 * scores + 0.3 * truth
    copies = (np.repeat(truth, 5, axis=0), np.repeat(scores, 5, axis=0))
    once = multilabel_metrics(truth, scores, range(40), PATTERNS)
    together = multilabel_metrics(*copies, np.repeat(np.arange(40), 5), PATTERNS)
    apart = multilabel_metrics(*copies, range(200), PATTERNS)
    assert (together.num_specimens, together.num_examples) == (40, 200)
    assert list(estimates_of(together)) == ["mAP", "f1_micro", "f1_macro", "exact_match", "hamming"]
    for name in estimates_of(together):
        low, high = estimates_of(together)[name].ci95
        assert low < float(estimates_of(together)[name]) < high
        np.testing.assert_allclose([low, high], estimates_of(once)[name].ci95)
        assert high - low > 1.5 * np.ptp(estimates_of(apart)[name].ci95)


def test_one_specimen_has_no_interval_and_everything_goes_into_json():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = multilabel_metrics([[0, 0]], [[0.1, 0.2]], ["s"], ("one", "two"))
    assert measured.mAP.value is measured.f1_micro.value is measured.mAP.ci95 is None
    assert measured.exact_match.value == 1
    entries = to_dict(measured)
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries


@pytest.mark.parametrize(
    ("truth", "scores", "groups", "said"),
    [
        ([[1, 0]], [[0.5]], "a", "do not fit 2 patterns"),
        ([[1]], [[0.5]], "a", "do not fit 2 patterns"),
        ([[2, 0]], [[0.5, 0.5]], "a", "0 and 1 only"),
        ([[1, 0]], [[0.5, np.nan]], "a", r"values in \[0, 1\]"),
        ([[1, 0]], [[0.5, 0.5]], "ab", "1 items but 2 specimen ids"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "", "no image"),
    ],
)
def test_wrong_input(truth, scores, groups, said):
    with pytest.raises(ValueError, match=said):
        multilabel_metrics(truth, scores, list(groups), ("one", "two"))


def test_a_pattern_of_just_the_threshold_is_there():
    measured = multilabel_metrics([[1, 0]], [[0.25, 0.2]], "a", ("one", "two"), threshold=0.25)
    assert measured.exact_match.value == measured.f1_micro.value == 1
