"""Objects against hand-computed values, and against brute force over random masks."""

import numpy as np
import pytest
from scipy import ndimage

from hep2jax import metrics
from tests.metrics.masks import random_masks, random_objects


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
            mask = random_masks(seed)[0]
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
            prediction, reference = random_objects(2 * seed), random_objects(2 * seed + 1)
            if seed % 3 == 0:  # near copies, where matches are plenty
                prediction = np.roll(reference, seed % 4, axis=1)
            valid = random_masks(seed, reference.shape)[0]
            expected = _seg_by_hand(prediction, reference, valid)
            np.testing.assert_allclose(metrics.seg_score(prediction, reference, valid), expected, atol=1e-15)
            everywhere = np.ones_like(valid)
            np.testing.assert_array_equal(
                metrics.seg_score(prediction, reference), metrics.seg_score(prediction, reference, everywhere)
            )

    def test_names_of_objects_do_not_matter(self):
        for seed in range(20):
            prediction, reference = random_objects(seed), np.roll(random_objects(seed), 2, axis=0)
            rng = np.random.default_rng(seed)
            rename = np.r_[0, rng.choice(60000, 40, replace=False) + 1]
            scores = metrics.seg_score(prediction, reference)
            np.testing.assert_array_equal(metrics.seg_score(rename[prediction], reference), scores)
            renamed = metrics.seg_score(prediction, rename[reference].astype(np.uint16))
            np.testing.assert_array_equal(np.sort(renamed), np.sort(scores))

    def test_perfect_and_empty(self):
        objects = random_objects(4)
        np.testing.assert_array_equal(metrics.seg_score(objects, objects), np.ones(len(np.unique(objects)) - 1))
        assert metrics.seg_score(objects, np.zeros_like(objects)).shape == (0,)
        assert not metrics.seg_score(np.zeros_like(objects), objects).any()
        assert metrics.seg_score(objects, objects, np.zeros(objects.shape, bool)).shape == (0,)

    @pytest.mark.usefixtures("unchecked")
    def test_wrong_input(self):
        objects = np.zeros((3, 4), np.int32)
        with pytest.raises(ValueError, match="reference"):
            metrics.seg_score(objects, objects.T)
        with pytest.raises(ValueError, match="negative, found -1"):
            metrics.seg_score(objects - 1, objects)
