"""Pixel decisions and the specimen's vote, ties and emptiness included."""

import numpy as np
import pytest

from hep2jax import metrics
from hep2jax.specimens import voting


class TestDecide:
    def test_foreground_is_not_background_even_where_patterns_disagree(self):
        probabilities = np.array([[[0.4, 0.3, 0.3], [0.5, 0.0, 0.5], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]]], np.float32)
        foreground, pattern = voting.decide(probabilities)
        assert foreground.dtype == np.bool_
        assert foreground.tolist() == [[True, False, True, False]]
        assert pattern.tolist() == [[0, 0, 1, 0]]  # 0 on the background

    def test_brute_force(self):
        probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.5), (9, 11))
        foreground, pattern = voting.decide(probabilities)
        for row, column in np.ndindex(9, 11):
            background, *patterns = probabilities[row, column]
            assert foreground[row, column] == (sum(patterns) > 0.5) == (background < 0.5)
            wanted = patterns.index(max(patterns)) if foreground[row, column] else 0
            assert pattern[row, column] == wanted

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="expected probabilities"):
            voting.decide(np.zeros(shape))


class TestVote:
    def test_fields_are_pooled_by_pixels(self):
        """Two fields of three prefer pattern 0, but the third has more cells."""
        assert voting.vote(np.array([[10, 5, 0], [10, 5, 0], [0, 11, 0]])) == 1

    def test_ties_go_to_the_first_class(self):
        assert voting.vote(np.array([[0, 4, 4]])) == 1
        assert voting.vote(np.array([[0, 0, 4], [0, 4, 0]])) == 1

    def test_no_foreground(self):
        nothing = np.zeros((4, 3), int)
        assert voting.vote(nothing) is None
        assert voting.vote(np.zeros((0, 3), int)) is None
        report = metrics.classification_metrics([2], [voting.vote(nothing)], ["a"], ("x", "y", "z"))
        assert report.aca.value == 0.0

    def test_order_of_fields_does_not_matter(self):
        rng = np.random.default_rng(0)
        for _ in range(30):
            counts = rng.integers(0, 4, (4, 5))
            winner = voting.vote(counts)
            assert voting.vote(rng.permutation(counts)) == voting.vote(counts.sum(0)) == winner
            assert winner == counts.sum(0).tolist().index(counts.sum(0).max())

    def test_shares(self):
        np.testing.assert_array_equal(voting.vote_shares(np.array([[1, 0, 2], [0, 0, 1]])), [0.25, 0, 0.75])
        np.testing.assert_array_equal(voting.vote_shares(np.zeros((2, 3), int)), [0, 0, 0])

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("counts", [np.zeros((1, 2, 3)), np.zeros((2, 0)), np.array([[1, -1]])])
    def test_wrong_counts(self, counts):
        with pytest.raises(ValueError, match="expected pixel counts"):
            voting.vote(counts)


def test_from_probabilities_to_pattern():
    """A field whose cells are pattern 2, with a background that would vote for pattern 0."""
    probabilities = np.zeros((20, 20, 4))
    probabilities[...] = (0.9, 0.1, 0, 0)
    probabilities[5:9, 5:9] = (0.1, 0.2, 0.1, 0.6)
    probabilities[12:14, 12:14] = (0.1, 0.7, 0.1, 0.1)
    foreground, pattern = voting.decide(probabilities)
    counts = voting.pattern_counts(foreground, pattern, 3)
    assert counts.tolist() == [4, 0, 16]
    assert voting.vote(counts[None]) == 2


def test_a_lower_threshold_finds_more_foreground():
    probabilities = np.array([[[0.55, 0.45], [0.65, 0.35], [0.45, 0.55]]])
    assert voting.decide(probabilities)[0].tolist() == [[False, False, True]]
    assert voting.decide(probabilities, 0.4)[0].tolist() == [[True, False, True]]


def _scores(readings: list[int], *, sure: float = 0.8, num_patterns: int = 3) -> np.ndarray:
    """Cells that are read so, each with the same certainty."""
    rest = (1 - sure) / (num_patterns - 1)
    return np.eye(num_patterns)[readings] * (sure - rest) + rest


class TestRules:
    def test_prevalence_counts_cells_and_the_mean_counts_certainty(self):
        unsure, sure = _scores([0, 0, 0], sure=0.4), _scores([1, 1], sure=0.9)
        scores = np.concatenate([unsure, sure])
        pattern, shares = voting.by_prevalence(scores)
        assert (pattern, shares.tolist()) == (0, [0.6, 0.4, 0])
        pattern, mean = voting.by_mean_probability(scores)
        assert pattern == 1
        np.testing.assert_allclose(mean, [0.26, 0.54, 0.2])

    def test_a_tie_of_cells_goes_to_the_more_probable_pattern(self):
        scores = np.concatenate([_scores([2], sure=0.5), _scores([1], sure=0.9)])
        assert voting.by_prevalence(scores)[0] == 1

    def test_histogram_is_of_readings_not_of_probabilities(self):
        np.testing.assert_array_equal(voting.pattern_histogram(_scores([2, 2, 0, 2], sure=0.5)), [0.25, 0, 0.75])


class TestHistogramSvm:
    def _specimens(self, seed: int, *, cells: int = 30) -> tuple[list[np.ndarray], list[int]]:
        """A reader that calls 60 % of the cells of pattern 1 pattern 0, and is right about the others."""
        rng = np.random.default_rng(seed)
        chances = ([0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.05, 0.05, 0.9])
        truth = [pattern for pattern in range(3) for _ in range(12)]
        return [_scores(list(rng.choice(3, cells, p=chances[t]))) for t in truth], truth

    def test_it_learns_what_the_cell_reader_confuses(self):
        svm = voting.fit_histogram_svm(*self._specimens(0))
        new, truth = self._specimens(1)
        read = [svm(scores)[0] for scores in new]
        voted = [voting.by_prevalence(scores)[0] for scores in new]
        assert np.mean(np.equal(read, truth)) > 0.9
        assert np.mean(np.equal(voted, truth)) < 0.8

    def test_scores_are_a_distribution_and_the_number_of_cells_does_not_matter(self):
        svm = voting.fit_histogram_svm(*self._specimens(0))
        pattern, scores = svm(_scores([2, 2, 0]))
        assert pattern == scores.argmax() == 2
        assert scores.sum() == pytest.approx(1)
        np.testing.assert_allclose(svm(_scores([2, 2, 0] * 7))[1], scores)

    def test_patterns_weigh_equally_however_many_specimens_they_have(self):
        """Half of the cells read as either pattern: 40 specimens of the first do not outvote four of the second."""
        shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        first = [_scores([1] * round(20 * s) + [0] * round(20 - 20 * s), num_patterns=2) for s in shares * 7]
        second = [_scores([1] * n + [0] * (20 - n), num_patterns=2) for n in (8, 12, 14, 18)]
        svm = voting.fit_histogram_svm(first + second, [0] * len(first) + [1] * len(second))
        assert svm(_scores([1] * 11 + [0] * 9, num_patterns=2))[0] == 1
        assert svm(_scores([1] * 8 + [0] * 12, num_patterns=2))[0] == 0

    def test_two_patterns_of_four(self):
        """One SVM stands for both; the patterns that no specimen had get nothing."""
        rows = [_scores(cells, num_patterns=4) for cells in ([3, 3, 1], [3, 3, 3], [1, 1, 3], [1, 1, 1])]
        svm = voting.fit_histogram_svm(rows, [3, 3, 1, 1])
        pattern, scores = svm(_scores([3, 3, 3, 1], num_patterns=4))
        assert pattern == 3
        assert scores[[0, 2]].tolist() == [0, 0]
        assert svm(_scores([1, 1, 1, 3], num_patterns=4))[0] == 1


class TestReadSpecimens:
    SCORES = _scores([0, 0, 1, 2, 2, 1, 1])
    NAMES = ["a", "a", "a", "b", "b", "b", "c"]
    MITOTIC = np.array([False, False, False, True, True, False, True])

    def test_each_specimen_has_its_own_cells(self):
        read = voting.read_specimens(self.SCORES, self.NAMES, voting.by_prevalence)
        rows = [(row.specimen, row.pattern, row.num_cells, row.num_set_aside) for row in read.readings]
        assert rows == [("a", 0, 3, 0), ("b", 2, 3, 0), ("c", 1, 1, 0)]
        assert read.left_out == {}

    def test_mitotic_cells_are_set_aside_unless_they_are_to_be_used(self):
        read = voting.read_specimens(self.SCORES, self.NAMES, voting.by_prevalence, mitotic=self.MITOTIC)
        rows = [(row.specimen, row.pattern, row.num_cells, row.num_set_aside) for row in read.readings]
        assert rows == [("a", 0, 3, 0), ("b", 1, 1, 2)]
        assert read.left_out == {"c": "all its 1 cells are mitotic and were not used"}
        used = voting.read_specimens(
            self.SCORES, self.NAMES, voting.by_prevalence, mitotic=self.MITOTIC, use_mitotic=True
        )
        assert [row.pattern for row in used.readings] == [0, 2, 1]

    def test_a_specimen_without_cells_is_named_and_the_rest_goes_on(self):
        order = ["b", "empty", "a"]
        read = voting.read_specimens(self.SCORES, self.NAMES, voting.by_mean_probability, specimens=order)
        assert [row.specimen for row in read.readings] == ["b", "a"]
        assert read.left_out == {"empty": "no cell was found in it"}

    def test_no_cell_at_all(self):
        read = voting.read_specimens(np.zeros((0, 3)), [], voting.by_prevalence, specimens=["a", "b"])
        assert read.readings == ()
        assert list(read.left_out) == ["a", "b"]

    def test_scores_that_do_not_fit_the_cells(self):
        with pytest.raises(ValueError, match="of 7 cells"):
            voting.read_specimens(self.SCORES[:3], self.NAMES, voting.by_prevalence)


def test_the_product_of_cells_differs_from_their_mean():
    scores = np.array([[0.0, 1.0], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    assert voting.by_prevalence(scores)[0] == 0
    pattern, shares = voting.by_mean_log_probability(scores)
    assert pattern == 1  # one cell that excludes the first pattern outweighs three that lean to it
    product = np.maximum(scores, 1e-4).prod(axis=0) ** 0.25
    np.testing.assert_allclose(shares, product / product.sum())


def test_cells_in_the_light_of_their_specimen():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    again = voting.reread(scores)
    np.testing.assert_allclose(again[2], [(0.4 + 0.85) / 2, (0.6 + 0.15) / 2])
    np.testing.assert_allclose(again.sum(axis=1), 1)
    np.testing.assert_allclose(voting.reread(scores[:1]), scores[:1])
    np.testing.assert_allclose(voting.reread(scores, weight=0.0), scores)
