"""Segmented images together: against hand-computed values, and under what must not move the metrics."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from hep2jax import metrics
from hep2jax.metrics import PixelCounts, intervals
from hep2jax.metrics.estimates import estimates_of
from tests.metrics.masks import random_masks, random_objects

PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "numem", "golgi")


def _score(specimen, pattern, seed):
    prediction, truth, valid = random_masks(seed)
    return metrics.score_image(specimen, pattern, prediction, truth, random_objects(seed, truth.shape), valid)


def _one_image(specimen, pattern, counts, jaccards=(), instance_jaccards=()):
    return metrics.ImageScore(specimen, pattern, counts, np.array(jaccards, float), np.array(instance_jaccards, float))


class TestSegmentation:
    def test_hand_computed(self):
        images = [
            _one_image("a", "golgi", PixelCounts(8, 2, 2, 88), [1.0, 0.5], [0.25]),
            _one_image("a", "golgi", PixelCounts(0, 0, 0, 100)),
            _one_image("b", "numem", PixelCounts(2, 3, 4, 91), [0.0], [0.75, 0.5]),
        ]
        report = metrics.segmentation_metrics(images)
        assert report.SE.value == 10 / 16
        assert report.SP.value == 279 / 284
        assert report.JA.value == 10 / 21
        assert report.AC.value == report.pixel_accuracy == 289 / 300
        assert report.Dice.value == 20 / 31
        assert report.SEG.value == 0.5
        assert report.SEG_instances.value == 0.5
        assert report.Dice_mean_per_image == pytest.approx((0.8 + 1 + 4 / 11) / 3, abs=1e-15)
        assert report.Dice_per_pattern == {"golgi": 0.8, "numem": 4 / 11}
        assert (report.num_images, report.num_specimens, report.num_objects, report.num_instances) == (3, 2, 3, 3)
        # Two specimens: the metric without each in turn is the other's.
        for name, each in (("Dice", (4 / 11, 0.8)), ("SEG", (0.0, 0.75))):
            own = estimates_of(report)[name]
            assert own.ci95 == intervals.jackknife_interval(own.value, np.array(each))

    def test_pooling_ignores_partition_and_order(self):
        images = [_score(f"s{i % 5}", PATTERNS[i % 5], i) for i in range(15)]
        whole = metrics.segmentation_metrics(images)
        shuffled = [images[i] for i in np.random.default_rng(0).permutation(15)]
        assert metrics.segmentation_metrics(shuffled) == whole
        merged = []
        for specimen in sorted({image.specimen for image in images}):
            members = [image for image in images if image.specimen == specimen]
            merged.append(
                metrics.ImageScore(
                    specimen,
                    members[0].pattern,
                    sum((m.counts for m in members), PixelCounts()),
                    np.concatenate([m.jaccards for m in members]),
                    np.concatenate([m.instance_jaccards for m in members]),
                )
            )
        by_specimen = metrics.segmentation_metrics(merged)
        per_image = {"num_images": whole.num_images, "Dice_mean_per_image": whole.Dice_mean_per_image}
        assert dataclasses.replace(by_specimen, **per_image) == whole

    def test_interval_covers_the_value_and_narrows(self):
        rng = np.random.default_rng(0)
        images = []
        for i in range(200):
            tp = int(rng.integers(50, 100))
            images.append(_one_image(i, "golgi", PixelCounts(tp, tp // 5, 100 - tp, 500), [tp / 100]))
        few, many = (metrics.segmentation_metrics(images[:n]) for n in (8, 200))
        for name in ("SE", "SP", "JA", "AC", "Dice", "SEG"):
            surer, less_sure = (estimates_of(report)[name] for report in (many, few))
            assert surer.ci95.low < surer.value < surer.ci95.high
            assert np.diff(surer.ci95) < np.diff(less_sure.ci95)
        # The jackknife of a mean has a closed form: the sample's spread.
        spread = 1.97 * np.std([image.jaccards[0] for image in images], ddof=1) / math.sqrt(200)
        np.testing.assert_allclose(many.SEG.ci95, [many.SEG.value - spread, many.SEG.value + spread], atol=0.003)

    def test_undefined_is_none_and_json_has_no_nan(self):
        background = _one_image("a", "golgi", PixelCounts(tn=9))
        for images in ([], [background], [background, _one_image("b", "golgi", PixelCounts(tn=4))]):
            report = metrics.segmentation_metrics(images)
            assert report.SE.value is report.SEG.value is report.SE.ci95 is report.SEG.ci95 is None
            assert report.Dice.value == 1.0
            json.dumps(metrics.to_dict(report), allow_nan=False)
        assert metrics.segmentation_metrics([_score("a", "golgi", 1)]).Dice.ci95 is None

    def test_the_two_readings_of_seg(self):
        instances = np.array([[1, 1, 1, 2, 2, 0, 0, 0, 3]], np.int32)
        truth, valid = instances > 0, np.ones((1, 9), bool)
        merged = metrics.score_image("a", "golgi", truth, truth, instances, valid)
        np.testing.assert_array_equal(merged.jaccards, [1, 1])
        np.testing.assert_array_equal(merged.instance_jaccards, [3 / 5, 2 / 5, 1])
        split = metrics.score_image("a", "golgi", truth, truth, instances, valid, predicted_instances=instances)
        np.testing.assert_array_equal(split.jaccards, [1, 1])
        np.testing.assert_array_equal(split.instance_jaccards, [1, 1, 1])

    def test_void_and_specks(self):
        instances = np.array([[1, 1, 1, 0, 4, 4, 0, 0, 0]], np.int32)
        valid = np.array([[1, 1, 1, 1, 0, 0, 1, 1, 1]], bool)
        prediction = np.array([[1, 1, 1, 1, 1, 1, 0, 0, 1]], bool)
        score = metrics.score_image("a", "golgi", prediction, instances > 0, instances, valid, min_pixels=2)
        assert score.counts == PixelCounts(tp=3, fp=2, fn=0, tn=2)
        np.testing.assert_array_equal(score.jaccards, [3 / 4])
        np.testing.assert_array_equal(score.instance_jaccards, [3 / 4])

    def test_a_speck_matches_no_cell(self):
        instances = np.array([[1, 1, 1, 0, 2, 2, 2, 2]], np.int32)
        prediction = np.array([[1, 1, 0, 0, 1, 1, 1, 0]], bool)
        masks, everywhere = (prediction, instances > 0), np.ones((1, 8), bool)
        for least, expected in ((2, [2 / 3, 3 / 4]), (3, [0, 3 / 4])):
            score = metrics.score_image("a", "golgi", *masks, instances, everywhere, min_pixels=least)
            np.testing.assert_array_equal(score.jaccards, expected)
            np.testing.assert_array_equal(score.instance_jaccards, expected)

    def test_void_joins_nothing(self):
        instances = np.array([[1, 1, 1, 0, 0, 2, 2, 2]], np.int32)
        valid = np.array([[1, 1, 1, 0, 0, 1, 1, 1]], bool)
        everywhere = np.ones((1, 8), bool)
        for prediction, truth in itertools.product((everywhere, instances > 0), repeat=2):
            score = metrics.score_image("a", "golgi", prediction, truth, instances, valid)
            np.testing.assert_array_equal(score.jaccards, [1, 1])
            np.testing.assert_array_equal(score.instance_jaccards, [1, 1])
