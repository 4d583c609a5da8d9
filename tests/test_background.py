"""Threads beside the computation: order, how far they run ahead, errors and priority."""

import os
import sys
import threading

import pytest

from hep2jax import background


def test_what_is_made_keeps_its_order_and_is_made_a_little_ahead():
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    made = background.made(lambda number: number * number, items(), ahead=2)
    assert next(made) == 0
    assert taken == [0, 1, 2]
    assert list(made) == [number * number for number in range(1, 10)]


def test_an_error_is_raised_where_its_result_would_be():
    made = background.made(lambda number: 1 // number, [2, 1, 0, 1], ahead=2)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_a_consumer_that_stops_leaves_no_thread_behind():
    before = threading.active_count()
    made = background.made(lambda number: number, iter(range(100)), ahead=2)
    next(made)
    made.close()
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_only_the_thread_steps_back():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    with background.thread() as worker:
        assert worker.submit(niceness).result() > own
    assert niceness() == own
