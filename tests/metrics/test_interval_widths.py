"""How wide intervals are, whatever their method: as wide as the number of independent specimens demands."""

import numpy as np
import pytest

from hep2jax import metrics
from hep2jax.metrics.estimates import estimates_of


def _width(truth: np.ndarray, prediction: np.ndarray, specimens: np.ndarray, name: str) -> float:
    report = metrics.classification_metrics(truth, prediction, specimens, ("a", "b"))
    low, high = estimates_of(report)[name].ci95
    return high - low


@pytest.mark.parametrize("cells", [1, 5])
def test_a_mean_of_recalls_is_no_surer_than_its_rarest_class_allows(cells: int):
    """200 specimens of one class say nothing of the other, which has four: the width is that of few specimens."""

    def width(*sizes: int) -> float:
        truth = np.repeat([0, 1], sizes)
        wrong = np.concatenate([np.arange(size) % 4 == 0 for size in sizes])  # three quarters of each class are right
        read = np.where(wrong, 1 - truth, truth)
        numbers = np.arange(len(truth))
        return _width(*(np.repeat(row, cells) for row in (truth, read, numbers)), "mca")

    even, uneven, few = width(100, 100), width(196, 4), width(4, 4)
    assert uneven > 2.5 * even
    assert few > uneven  # and it does say something of its own


@pytest.mark.parametrize("name", ["aca", "mca"])
def test_cells_that_agree_within_their_specimens_count_as_specimens(name: str):
    """20 specimens of 25 cells, all cells of one right or all wrong, beside 500 cells of which as many are right."""
    specimens = np.repeat(np.arange(20), 25)
    truth = specimens % 2
    together = np.where(specimens % 5 == 0, 1 - truth, truth)  # 16 of 20 are right
    apart = np.where(np.random.default_rng(0).permutation(500) % 5 == 0, 1 - truth, truth)
    clustered = _width(truth, together, specimens, name)
    assert clustered > 2.5 * _width(truth, apart, np.arange(500), name)
    assert clustered > 2 * _width(truth, apart, specimens, name)
    assert clustered == pytest.approx(_width(truth[::25], together[::25], specimens[::25], name), rel=0.5)
