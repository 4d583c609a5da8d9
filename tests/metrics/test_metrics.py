"""Figures against hand-computed values, against brute force over random masks, and under what must not move them."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import ndimage, stats

from hep2jax import metrics
from hep2jax.metrics import PixelCounts, intervals

PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "numem", "golgi")


def _random_masks(seed, shape=(23, 31)):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.95, 3)
    return tuple(rng.random(shape) < s for s in share)


def _random_objects(seed, shape=(24, 30), num=6):
    """Discs that may overlap and need not be connected; labels have gaps."""
    rng = np.random.default_rng(seed)
    objects = np.zeros(shape, np.int32)
    rows, columns = np.indices(shape)
    for label in rng.permutation(40)[: rng.integers(0, num + 1)] + 1:
        y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1, 7)
        objects[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = label
    return objects


def _score(specimen, pattern, seed):
    prediction, truth, valid = _random_masks(seed)
    return metrics.score_image(specimen, pattern, prediction, truth, _random_objects(seed, truth.shape), valid)


def _one_image(specimen, pattern, counts, jaccards=(), instance_jaccards=()):
    return metrics.ImageScore(specimen, pattern, counts, np.array(jaccards, float), np.array(instance_jaccards, float))


class TestPixels:
    def test_hand_computed(self):
        prediction = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
        truth = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
        valid = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
        counts = metrics.count_pixels(prediction, truth, valid)
        assert counts == PixelCounts(tp=2, fp=1, fn=1, tn=3)
        expected = {"SE": 2 / 3, "SP": 3 / 4, "JA": 2 / 4, "AC": 5 / 7, "Dice": 4 / 6}
        assert counts.figures() == expected

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
        assert counts.figures() == expected

    def test_brute_force(self):
        for seed in range(100):
            prediction, truth, valid = _random_masks(seed)
            cells = [(p, t) for p, t, v in zip(prediction.flat, truth.flat, valid.flat, strict=True) if v]
            expected = [cells.count(cell) for cell in ((1, 1), (1, 0), (0, 1), (0, 0))]
            counts = metrics.count_pixels(prediction, truth, valid)
            assert counts == PixelCounts(*expected)
            figures = counts.figures()
            assert figures["Dice"] == pytest.approx(2 * figures["JA"] / (1 + figures["JA"]), abs=1e-15)

    def test_parts_add_to_the_whole(self):
        for seed in range(20):
            masks = _random_masks(seed)
            cut = seed % 22 + 1
            parts = [metrics.count_pixels(*(m[s] for m in masks)) for s in (np.s_[:cut], np.s_[cut:])]
            assert parts[0] + parts[1] == metrics.count_pixels(*masks)

    def test_counts_beyond_32_bits_stay_exact(self):
        figures = PixelCounts(tp=3 * 10**12, fp=10**12, fn=10**12, tn=10**12).figures()
        assert figures["JA"] == 0.6
        assert figures["Dice"] == 0.75

    def test_wrong_input(self):
        mask = np.zeros((3, 4), bool)
        with pytest.raises(ValueError, match=r"truth \(4, 3\)"):
            metrics.count_pixels(mask, mask.T, mask)
        with pytest.raises(ValueError, match="prediction: expected a bool mask, got float64"):
            metrics.count_pixels(mask.astype(float), mask, mask)


class TestConnectedObjects:
    def test_diagonals_touch_and_specks_go(self):
        mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
        expected = np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 0], [3, 3, 3, 0]])
        np.testing.assert_array_equal(metrics.connected_objects(mask), expected)
        without_speck = np.where(expected == 2, 0, np.where(expected == 3, 2, expected))
        np.testing.assert_array_equal(metrics.connected_objects(mask, 2), without_speck)
        assert metrics.connected_objects(mask, connectivity=4).max() == 4

    def test_against_scipy(self):
        for seed in range(30):
            mask = _random_masks(seed)[0]
            expected, _ = ndimage.label(mask, np.ones((3, 3)))
            objects = metrics.connected_objects(mask)
            assert objects.dtype == np.int32
            pairs = set(zip(expected.flat, objects.flat, strict=True))
            assert len(pairs) == expected.max() + 1 == objects.max() + 1
            large = [k for k in range(1, objects.max() + 1) if (objects == k).sum() >= 4]
            np.testing.assert_array_equal(metrics.connected_objects(mask, 4) > 0, np.isin(objects, large))

    @pytest.mark.parametrize("value", [False, True])
    def test_uniform(self, value):
        objects = metrics.connected_objects(np.full((5, 6), value))
        np.testing.assert_array_equal(objects, np.full((5, 6), int(value)))


def _seg_by_hand(prediction, reference, valid):
    scores = []
    for label in sorted(set(reference[valid].tolist()) - {0}):
        region, best = (reference == label) & valid, 0.0
        for candidate in set(prediction[valid].tolist()) - {0}:
            found = (prediction == candidate) & valid
            common = (region & found).sum()
            if common > 0.5 * region.sum():
                best = common / (region | found).sum()
        scores.append(best)
    return scores


class TestSeg:
    def test_hand_computed(self):
        reference = np.array([[5, 5, 5, 5, 0, 2, 2, 2, 0, 9]])
        prediction = np.array([[3, 3, 3, 0, 0, 0, 1, 1, 1, 0]])
        np.testing.assert_array_equal(metrics.seg_score(prediction, reference), [2 / 4, 3 / 4, 0.0])

    def test_half_is_not_more_than_half(self):
        reference = np.array([[1, 1, 1, 1]])
        assert metrics.seg_score(np.array([[1, 1, 0, 0]]), reference) == [0.0]
        assert metrics.seg_score(np.array([[1, 1, 2, 2]]), reference) == [0.0]
        assert metrics.seg_score(np.array([[1, 1, 1, 2]]), reference) == [0.75]

    def test_one_object_over_two_cells_matches_both_poorly(self):
        reference = np.array([[1, 1, 1, 2, 2, 2]])
        np.testing.assert_array_equal(metrics.seg_score(np.full((1, 6), 7), reference), [0.5, 0.5])

    def test_brute_force(self):
        for seed in range(150):
            prediction, reference = _random_objects(2 * seed), _random_objects(2 * seed + 1)
            if seed % 3 == 0:  # near copies, where matches are plenty
                prediction = np.roll(reference, seed % 4, axis=1)
            valid = _random_masks(seed, reference.shape)[0]
            expected = _seg_by_hand(prediction, reference, valid)
            np.testing.assert_allclose(metrics.seg_score(prediction, reference, valid), expected, atol=1e-15)
            everywhere = np.ones_like(valid)
            np.testing.assert_array_equal(
                metrics.seg_score(prediction, reference), metrics.seg_score(prediction, reference, everywhere)
            )

    def test_names_of_objects_do_not_matter(self):
        for seed in range(20):
            prediction, reference = _random_objects(seed), np.roll(_random_objects(seed), 2, axis=0)
            rng = np.random.default_rng(seed)
            rename = np.r_[0, rng.choice(60000, 40, replace=False) + 1]
            scores = metrics.seg_score(prediction, reference)
            np.testing.assert_array_equal(metrics.seg_score(rename[prediction], reference), scores)
            renamed = metrics.seg_score(prediction, rename[reference].astype(np.uint16))
            np.testing.assert_array_equal(np.sort(renamed), np.sort(scores))

    def test_perfect_and_empty(self):
        objects = _random_objects(4)
        np.testing.assert_array_equal(metrics.seg_score(objects, objects), np.ones(len(np.unique(objects)) - 1))
        assert metrics.seg_score(objects, np.zeros_like(objects)).shape == (0,)
        assert not metrics.seg_score(np.zeros_like(objects), objects).any()
        assert metrics.seg_score(objects, objects, np.zeros(objects.shape, bool)).shape == (0,)

    def test_wrong_input(self):
        objects = np.zeros((3, 4), np.int32)
        with pytest.raises(ValueError, match="reference"):
            metrics.seg_score(objects, objects.T)
        with pytest.raises(ValueError, match="negative, found -1"):
            metrics.seg_score(objects - 1, objects)


class TestPixelReport:
    def test_hand_computed(self):
        images = [
            _one_image("a", "golgi", PixelCounts(8, 2, 2, 88), [1.0, 0.5], [0.25]),
            _one_image("a", "golgi", PixelCounts(0, 0, 0, 100)),
            _one_image("b", "numem", PixelCounts(2, 3, 4, 91), [0.0], [0.75, 0.5]),
        ]
        report = metrics.pixel_report(images)
        assert report["SE"] == 10 / 16
        assert report["SP"] == 279 / 284
        assert report["JA"] == 10 / 21
        assert report["AC"] == report["pixel_accuracy"] == 289 / 300
        assert report["Dice"] == 20 / 31
        assert report["SEG"] == 0.5
        assert report["SEG_instances"] == 0.5
        assert report["Dice_mean_per_image"] == pytest.approx((0.8 + 1 + 4 / 11) / 3, abs=1e-15)
        assert report["Dice_per_pattern"] == {"golgi": 0.8, "numem": 4 / 11}
        assert [report[f"num_{n}"] for n in ("images", "specimens", "objects", "instances")] == [3, 2, 3, 3]
        # Two specimens: the figure without each in turn is the other's.
        for name, each in (("Dice", (4 / 11, 0.8)), ("SEG", (0.0, 0.75))):
            assert report[f"{name}_ci95"] == intervals.jackknife_interval(report[name], np.array(each))

    def test_pooling_ignores_partition_and_order(self):
        images = [_score(f"s{i % 5}", PATTERNS[i % 5], i) for i in range(15)]
        whole = metrics.pixel_report(images)
        shuffled = [images[i] for i in np.random.default_rng(0).permutation(15)]
        assert metrics.pixel_report(shuffled) == whole
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
        by_specimen = metrics.pixel_report(merged)
        per_image = ("num_images", "Dice_mean_per_image")
        assert {k: v for k, v in by_specimen.items() if k not in per_image} == {
            k: v for k, v in whole.items() if k not in per_image
        }

    def test_interval_covers_the_figure_and_narrows(self):
        rng = np.random.default_rng(0)
        images = []
        for i in range(200):
            tp = int(rng.integers(50, 100))
            images.append(_one_image(i, "golgi", PixelCounts(tp, tp // 5, 100 - tp, 500), [tp / 100]))
        few, many = (metrics.pixel_report(images[:n]) for n in (8, 200))
        for name in (*metrics.PIXEL_FIGURES, "SEG"):
            assert many[f"{name}_ci95"][0] < many[name] < many[f"{name}_ci95"][1]
            assert np.diff(many[f"{name}_ci95"]) < np.diff(few[f"{name}_ci95"])
        # The jackknife of a mean has a closed form: the sample's spread.
        spread = 1.97 * np.std([image.jaccards[0] for image in images], ddof=1) / math.sqrt(200)
        np.testing.assert_allclose(many["SEG_ci95"], [many["SEG"] - spread, many["SEG"] + spread], atol=0.003)

    def test_undefined_is_none_and_json_has_no_nan(self):
        background = _one_image("a", "golgi", PixelCounts(tn=9))
        for images in ([], [background], [background, _one_image("b", "golgi", PixelCounts(tn=4))]):
            report = metrics.pixel_report(images)
            assert report["SE"] is report["SEG"] is report["SE_ci95"] is report["SEG_ci95"] is None
            assert report["Dice"] == 1.0
            json.dumps(report, allow_nan=False)
        assert metrics.pixel_report([_score("a", "golgi", 1)])["Dice_ci95"] is None

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


class TestPixelClasses:
    def test_hand_computed(self):
        truth = np.array([[0, 0, 1, 1, 1, 2, 2, 255]], np.uint8)
        prediction = np.array([[0, 1, 1, 1, 2, 2, 0, 1]])
        counts = metrics.count_classes(prediction, truth, truth != 255, 3)
        assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
        report = metrics.class_pixel_report(counts, ("a", "b", "c"))
        assert report["iou"] == {"a": 2 / 4, "b": 1 / 3, "c": None}
        assert report["mean_class_iou"] == pytest.approx(5 / 12, abs=1e-15)
        assert report["pattern_accuracy"] == 3 / 4
        assert report["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]

    def test_a_pattern_that_is_only_predicted_is_left_out_of_the_mean(self):
        report = metrics.class_pixel_report(np.array([[4, 0, 1], [0, 3, 1], [0, 0, 0]]), ("a", "b"))
        assert report["iou"] == {"a": 3 / 4, "b": 0}
        assert report["mean_class_iou"] == 3 / 4

    def test_brute_force_and_addition(self):
        total = np.zeros((4, 4), np.int64)
        rng = np.random.default_rng(0)
        truth, prediction = rng.integers(0, 4, (2, 30, 17, 19))
        valid = rng.random(truth.shape) < 0.7
        for one_truth, one_prediction, one_valid in zip(truth, prediction, valid, strict=True):
            total += metrics.count_classes(one_prediction, one_truth, one_valid, 3)
        expected = [[(valid & (truth == i) & (prediction == j)).sum() for j in range(4)] for i in range(4)]
        np.testing.assert_array_equal(total, expected)
        for k, iou in enumerate(metrics.class_pixel_report(total, "abc")["iou"].values(), start=1):
            t, p = valid & (truth == k), valid & (prediction == k)
            assert iou == (t & p).sum() / (t | p).sum()

    def test_wrong_input(self):
        truth, valid = np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool)
        with pytest.raises(ValueError, match=r"truth: pixel classes 255\.\.255 outside 0\.\.3"):
            metrics.count_classes(np.zeros((2, 2), int), truth, valid, 3)
        with pytest.raises(ValueError, match=r"prediction: pixel classes -1"):
            metrics.count_classes(np.full((2, 2), -1), np.zeros((2, 2), int), valid, 3)
        with pytest.raises(ValueError, match="do not fit 3 patterns"):
            metrics.class_pixel_report(np.zeros((3, 3), int), "abc")


def _cascio():
    """83 specimens, 16/16/16/16/15/4, wrong: one of Golgi and one in each of two classes of 16 (METHODS, C3)."""
    truth = np.repeat(np.arange(6), (16, 16, 16, 16, 15, 4))
    prediction = truth.copy()
    prediction[[0, 16, 82]] = 3
    return truth, prediction


class TestClassification:
    def test_published_example(self):
        report = metrics.classification_report(*_cascio(), range(83), PATTERNS)
        assert report["aca"] == 80 / 83
        assert report["mca"] == pytest.approx(0.9375, abs=1e-15)
        np.testing.assert_allclose(report["aca_ci95"], [0.899, 0.988], atol=5e-4)
        assert report["ci_method"] == intervals.TRIALS
        assert report["per_class"]["golgi"] == {"recall": 0.75, "precision": 1.0, "support": 4}
        assert report["per_class"]["centromere"] == {"recall": 1.0, "precision": 16 / 19, "support": 16}
        assert report["confusion"][5] == [0, 0, 0, 1, 0, 3]
        assert (report["num_examples"], report["num_specimens"], report["num_undecided"]) == (83, 83, 0)

    @pytest.mark.parametrize(("right", "total"), [(80, 83), (0, 7), (7, 7), (1, 2), (14, 24)])
    def test_wilson_against_scipy(self, right, total):
        expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(intervals.score_interval(right / total, total), expected, atol=1e-12)

    def test_mean_recall_of_equal_classes_is_wilson_of_all_trials(self):
        interval = intervals.trials_interval(np.array([3, 4, 4, 2]), np.full(4, 4), np.full(4, 0.25))
        np.testing.assert_allclose(interval, intervals.score_interval(13 / 16, 16), atol=1e-12)

    def test_width_remains_at_all_right(self):
        truth = np.repeat(np.arange(6), 4)
        report = metrics.classification_report(truth, truth, range(24), PATTERNS)
        assert report["aca"] == report["mca"] == 1.0
        assert report["aca_ci95"] == [pytest.approx(24 / (24 + 1.959964**2), abs=1e-6), 1.0]
        assert 0.7 < report["mca_ci95"][0] < 0.95
        assert report["mca_ci95"][1] == 1.0

    def test_mca_over_the_classes_that_occur(self):
        report = metrics.classification_report([0, 0, 0, 2], [0, 0, 1, 2], "abcd", ("x", "y", "z"))
        assert report["aca"] == 0.75
        assert report["mca"] == pytest.approx(5 / 6, abs=1e-15)
        assert report["per_class"]["y"] == {"recall": None, "precision": 0.0, "support": 0}
        json.dumps(report, allow_nan=False)

    def test_no_decision_is_an_error(self):
        report = metrics.classification_report([0, 1, 1], [None, 1, -1], "abc", ("x", "y"))
        assert report["aca"] == 1 / 3
        assert report["mca"] == 0.25
        assert report["confusion"] == [[0, 0], [0, 1]]
        assert report["per_class"]["y"]["support"] == 2
        assert report["num_undecided"] == 2

    def test_brute_force(self):
        for seed in range(30):
            rng = np.random.default_rng(seed)
            truth, prediction = rng.integers(0, 4, (2, 50))
            report = metrics.classification_report(truth, prediction, rng.integers(0, 9, 50), "abcd")
            recalls = [(prediction[truth == k] == k).mean() for k in range(4) if (truth == k).any()]
            assert report["aca"] == (truth == prediction).mean()
            assert report["mca"] == pytest.approx(np.mean(recalls), abs=1e-15)
            for i, j in itertools.product(range(4), range(4)):
                assert report["confusion"][i][j] == ((truth == i) & (prediction == j)).sum()

    def test_order_of_items_does_not_matter(self):
        rng = np.random.default_rng(1)
        specimen = rng.integers(0, 18, 300)
        truth = specimen % 6
        prediction = np.where(rng.random(300) < 0.8, truth, rng.integers(0, 6, 300))
        order = rng.permutation(300)
        one = metrics.classification_report(truth, prediction, specimen, PATTERNS)
        other = metrics.classification_report(truth[order], prediction[order], specimen[order], PATTERNS)
        assert one == other
        assert one["ci_method"] == intervals.CLUSTERED
        assert one["num_specimens"] == 18

    def test_cells_of_a_specimen_are_not_independent(self):
        """Specimens wholly right or wrong: 400 cells carry the information of 40 specimens, and no more."""
        specimen = np.repeat(np.arange(40), 10)
        truth = specimen % 2
        prediction = np.where(specimen % 5 == 0, 1 - truth, truth)
        by_cell = metrics.classification_report(truth, prediction, specimen, "ab")
        by_specimen = metrics.classification_report(truth[::10], prediction[::10], range(40), "ab")
        assert by_cell["aca"] == by_specimen["aca"] == 0.8
        np.testing.assert_allclose(np.diff(by_cell["aca_ci95"]), np.diff(by_specimen["aca_ci95"]), rtol=0.15)
        naive = np.diff(intervals.score_interval(0.8, 400))
        assert np.diff(by_cell["aca_ci95"]) > 2.5 * naive

    def test_specimens_that_agree_are_one_trial_each(self):
        specimen = np.repeat(np.arange(8), 5)
        all_right = metrics.classification_report(specimen % 2, specimen % 2, specimen, "ab")
        assert all_right["ci_method"] == intervals.CLUSTERED
        low, high = all_right["aca_ci95"]
        assert (low, high) == (pytest.approx(8 / (8 + stats.t.ppf(0.975, 6) ** 2)), 1)

    def test_one_specimen_of_a_class(self):
        """Each is a trial, won by its share; where a class has two specimens, their spread stands for all."""
        wrong = np.isin(np.arange(15), (1, 14))
        for truth, method in (
            (np.repeat([0, 1, 2], 5), intervals.TRIALS),
            (np.repeat([0, 0, 1], 5), intervals.CLUSTERED),
        ):
            read = np.where(wrong, (truth + 1) % 3, truth)
            report = metrics.classification_report(truth, read, np.repeat([0, 1, 2], 5), "abc")
            assert report["ci_method"] == method
            assert report["mca_ci95"][0] < report["mca"] < report["mca_ci95"][1]
        lone = metrics.classification_report([0] * 5 + [1] * 5, [0] * 9 + [1], [0] * 5 + [1] * 5, "ab")
        np.testing.assert_allclose(lone["aca_ci95"], intervals.score_interval(0.6, 2))

    def test_no_items(self):
        report = metrics.classification_report([], [], [], ("x", "y"))
        assert report["aca"] is report["mca"] is report["aca_ci95"] is report["mca_ci95"] is None
        assert report["num_examples"] == report["num_specimens"] == 0

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
            metrics.classification_report(truth, prediction, groups, ("x", "y"))
