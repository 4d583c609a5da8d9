"""Pixel decisions and the specimen's vote, ties and emptiness included."""

import numpy as np
import pytest

from hep2jax import metrics, specimen


class TestDecide:
    def test_foreground_is_not_background_even_where_patterns_disagree(self):
        probabilities = np.array([[[0.4, 0.3, 0.3], [0.5, 0.0, 0.5], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]]], np.float32)
        foreground, pattern = specimen.decide(probabilities)
        assert foreground.dtype == np.bool_
        assert foreground.tolist() == [[True, False, True, False]]
        assert pattern.tolist() == [[0, 1, 1, 0]]

    def test_brute_force(self):
        probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.5), (9, 11))
        foreground, pattern = specimen.decide(probabilities)
        for row, column in np.ndindex(9, 11):
            background, *patterns = probabilities[row, column]
            assert foreground[row, column] == (sum(patterns) > 0.5) == (background < 0.5)
            assert patterns[pattern[row, column]] == max(patterns)

    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="expected probabilities"):
            specimen.decide(np.zeros(shape))


class TestVote:
    def test_fields_are_pooled_by_pixels(self):
        """Two fields of three prefer pattern 0, but the third has more cells."""
        assert specimen.vote(np.array([[10, 5, 0], [10, 5, 0], [0, 11, 0]])) == 1

    def test_ties_go_to_the_first_class(self):
        assert specimen.vote(np.array([[0, 4, 4]])) == 1
        assert specimen.vote(np.array([[0, 0, 4], [0, 4, 0]])) == 1

    def test_no_foreground(self):
        nothing = np.zeros((4, 3), int)
        assert specimen.vote(nothing) is None
        assert specimen.vote(nothing, np.array([0.1, 0.2, 0.05])) == 1
        assert specimen.vote(np.zeros((0, 3), int)) is None
        report = metrics.classification_report([2], [specimen.vote(nothing)], ["a"], ("x", "y", "z"))
        assert report["aca"] == 0.0

    def test_probabilities_do_not_overrule_pixels(self):
        assert specimen.vote(np.array([[1, 0]]), np.array([0.0, 1.0])) == 0

    def test_order_of_fields_does_not_matter(self):
        rng = np.random.default_rng(0)
        for _ in range(30):
            counts = rng.integers(0, 4, (4, 5))
            winner = specimen.vote(counts)
            assert specimen.vote(rng.permutation(counts)) == specimen.vote(counts.sum(0)) == winner
            assert winner == counts.sum(0).tolist().index(counts.sum(0).max())

    def test_shares(self):
        np.testing.assert_array_equal(specimen.vote_shares(np.array([[1, 0, 2], [0, 0, 1]])), [0.25, 0, 0.75])
        np.testing.assert_array_equal(specimen.vote_shares(np.zeros((2, 3), int)), [0, 0, 0])

    @pytest.mark.parametrize("counts", [np.zeros((1, 2, 3)), np.zeros((2, 0)), np.array([[1, -1]])])
    def test_wrong_counts(self, counts):
        with pytest.raises(ValueError, match="expected pixel counts"):
            specimen.vote(counts)


def test_from_probabilities_to_pattern():
    """A field whose cells are pattern 2, with a background that would vote for pattern 0."""
    probabilities = np.zeros((20, 20, 4))
    probabilities[...] = (0.9, 0.1, 0, 0)
    probabilities[5:9, 5:9] = (0.1, 0.2, 0.1, 0.6)
    probabilities[12:14, 12:14] = (0.1, 0.7, 0.1, 0.1)
    foreground, pattern = specimen.decide(probabilities)
    counts = specimen.pattern_counts(foreground, pattern, 3)
    assert counts.tolist() == [4, 0, 16]
    assert specimen.vote(counts[None]) == 2


def test_a_lower_threshold_finds_more_foreground():
    probabilities = np.array([[[0.55, 0.45], [0.65, 0.35], [0.45, 0.55]]])
    assert specimen.decide(probabilities)[0].tolist() == [[False, False, True]]
    assert specimen.decide(probabilities, 0.4)[0].tolist() == [[True, False, True]]
