"""Metrics of pixels against hand-computed values, and against brute force over random masks."""

import numpy as np
import pytest

from hep2jax import metrics
from hep2jax.metrics import PixelCounts, PixelRatios
from tests.metrics.masks import random_masks


class TestPixels:
    def test_hand_computed(self):
        prediction = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
        truth = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
        valid = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
        counts = metrics.count_pixels(prediction, truth, valid)
        assert counts == PixelCounts(tp=2, fp=1, fn=1, tn=3)
        expected = {"SE": 2 / 3, "SP": 3 / 4, "JA": 2 / 4, "AC": 5 / 7, "Dice": 4 / 6}
        assert counts.ratios() == PixelRatios(**expected)

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            (PixelCounts(tn=5), {"SE": None, "SP": 1.0, "JA": 1.0, "AC": 1.0, "Dice": 1.0}),
            (PixelCounts(tp=5), {"SE": 1.0, "SP": None, "JA": 1.0, "AC": 1.0, "Dice": 1.0}),
            (PixelCounts(fn=5), {"SE": 0.0, "SP": None, "JA": 0.0, "AC": 0.0, "Dice": 0.0}),
            (PixelCounts(fp=5), {"SE": None, "SP": 0.0, "JA": 0.0, "AC": 0.0, "Dice": 0.0}),
            (PixelCounts(), {"SE": None, "SP": None, "JA": 1.0, "AC": None, "Dice": 1.0}),
        ],
    )
    def test_nothing_to_divide_by(self, counts, expected):
        assert counts.ratios() == PixelRatios(**expected)

    def test_brute_force(self):
        for seed in range(100):
            prediction, truth, valid = random_masks(seed)
            cells = [(p, t) for p, t, v in zip(prediction.flat, truth.flat, valid.flat, strict=True) if v]
            expected = [cells.count(cell) for cell in ((1, 1), (1, 0), (0, 1), (0, 0))]
            counts = metrics.count_pixels(prediction, truth, valid)
            assert counts == PixelCounts(*expected)
            ratios = counts.ratios()
            assert ratios.Dice == pytest.approx(2 * ratios.JA / (1 + ratios.JA), abs=1e-15)

    def test_parts_add_to_the_whole(self):
        for seed in range(20):
            masks = random_masks(seed)
            cut = seed % 22 + 1
            parts = [metrics.count_pixels(*(m[s] for m in masks)) for s in (np.s_[:cut], np.s_[cut:])]
            assert parts[0] + parts[1] == metrics.count_pixels(*masks)

    def test_counts_beyond_32_bits_stay_exact(self):
        ratios = PixelCounts(tp=3 * 10**12, fp=10**12, fn=10**12, tn=10**12).ratios()
        assert ratios.JA == 0.6
        assert ratios.Dice == 0.75

    @pytest.mark.usefixtures("unchecked")
    def test_wrong_input(self):
        mask = np.zeros((3, 4), bool)
        with pytest.raises(ValueError, match=r"truth \(4, 3\)"):
            metrics.count_pixels(mask, mask.T, mask)
        with pytest.raises(ValueError, match="prediction: expected a bool mask, got float64"):
            metrics.count_pixels(mask.astype(float), mask, mask)


class TestPixelClasses:
    def test_hand_computed(self):
        truth = np.array([[0, 0, 1, 1, 1, 2, 2, 255]], np.uint8)
        prediction = np.array([[0, 1, 1, 1, 2, 2, 0, 1]])
        counts = metrics.count_classes(prediction, truth, truth != 255, 3)
        assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
        report = metrics.class_pixel_metrics(counts, ("a", "b", "c"))
        assert report.iou == {"a": 2 / 4, "b": 1 / 3, "c": None}
        assert report.mean_class_iou == pytest.approx(5 / 12, abs=1e-15)
        assert report.pattern_accuracy == 3 / 4
        assert report.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))

    def test_a_pattern_that_is_only_predicted_is_left_out_of_the_mean(self):
        report = metrics.class_pixel_metrics(np.array([[4, 0, 1], [0, 3, 1], [0, 0, 0]]), ("a", "b"))
        assert report.iou == {"a": 3 / 4, "b": 0}
        assert report.mean_class_iou == 3 / 4

    def test_brute_force_and_addition(self):
        total = np.zeros((4, 4), np.int64)
        rng = np.random.default_rng(0)
        truth, prediction = rng.integers(0, 4, (2, 30, 17, 19))
        valid = rng.random(truth.shape) < 0.7
        for one_truth, one_prediction, one_valid in zip(truth, prediction, valid, strict=True):
            total += metrics.count_classes(one_prediction, one_truth, one_valid, 3)
        expected = [[(valid & (truth == i) & (prediction == j)).sum() for j in range(4)] for i in range(4)]
        np.testing.assert_array_equal(total, expected)
        for k, iou in enumerate(metrics.class_pixel_metrics(total, "abc").iou.values(), start=1):
            t, p = valid & (truth == k), valid & (prediction == k)
            assert iou == (t & p).sum() / (t | p).sum()

    def test_wrong_input(self):
        truth, valid = np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool)
        with pytest.raises(ValueError, match=r"truth: pixel classes 255\.\.255 outside 0\.\.3"):
            metrics.count_classes(np.zeros((2, 2), int), truth, valid, 3)
        with pytest.raises(ValueError, match=r"prediction: pixel classes -1"):
            metrics.count_classes(np.full((2, 2), -1), np.zeros((2, 2), int), valid, 3)
        with pytest.raises(ValueError, match="do not fit 3 patterns"):
            metrics.class_pixel_metrics(np.zeros((3, 3), int), "abc")
