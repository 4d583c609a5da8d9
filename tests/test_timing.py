import time

import pytest

from hep2jax.timing import PHASES, StepClock


def test_phases_account_for_all_of_the_time():
    clock = StepClock()
    with clock.phase("step"):
        time.sleep(0.05)
    with clock.phase("data_wait"):
        time.sleep(0.02)
    time.sleep(0.03)
    seconds = clock.seconds()
    assert set(seconds) == {*PHASES, "total"}
    assert sum(seconds[name] for name in PHASES) == pytest.approx(seconds["total"])
    assert seconds["step"] >= 0.05
    assert seconds["idle"] >= 0.03


def test_a_window_forgets_the_one_before():
    clock = StepClock()
    with clock.phase("data_wait"):
        time.sleep(0.03)
    with clock.phase("step"):
        time.sleep(0.01)
    first = clock.window(images=8)
    assert 0.5 < first["data_wait_share"] < 0.95
    assert first["images_per_second"] == pytest.approx(8 / 0.04, rel=0.5)
    assert clock.window(images=8) == {"images_per_second": 0.0, "data_wait_share": 0.0}
    assert clock.seconds()["data_wait"] >= 0.03


def test_a_phase_counts_even_if_it_fails():
    clock = StepClock()
    with pytest.raises(KeyError), clock.phase("checkpoint"):
        raise KeyError
    assert clock.seconds()["checkpoint"] > 0
