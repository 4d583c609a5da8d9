"""What lies on the devices at any time, and in which order results come back."""

import jax
import numpy as np

from hep2jax.data.streams import feeding


def test_results_come_in_order_and_few_are_under_way():
    started, finished = [], []

    def outputs():
        for number in range(8):
            started.append(number)
            yield f"batch {number}", jax.numpy.full((3,), number)

    for name, values in feeding.fetched(outputs()):
        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, len(finished))
        finished.append(name)
        assert len(started) == min(8, len(finished) + feeding.IN_FLIGHT)
    assert finished == [f"batch {number}" for number in range(8)]
