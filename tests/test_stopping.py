"""A signal ends what can be ended at once, and waits for the next safe point where something could be lost."""

import os
import signal
import subprocess
import sys

import pytest

from hep2jax import stopping
from hep2jax.data.streams import feeding
from hep2jax.stopping import Stopped


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """This process answers the signals, and forgets the requests of a test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(stopping._Requests, "name", "")
    monkeypatch.setattr(stopping._Requests, "answered", False)
    stopping.install()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_may_be_lost_is_ended_at_once(number: signal.Signals):
    with pytest.raises(Stopped, match=f"asked to stop \\({number.name}\\)"):
        os.kill(os.getpid(), number)
    assert stopping.requested()


def test_a_deferred_request_takes_effect_at_a_check():
    done = []

    @stopping.deferred()
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("the rest of a step")
        stopping.check()
        done.append("another step")

    with pytest.raises(Stopped):
        work()
    assert done == ["the rest of a step"]


def test_a_deferred_request_takes_effect_at_the_end_of_the_outermost_block():
    done = []

    @stopping.deferred()
    def work() -> None:
        with stopping.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        done.append("inner")

    with pytest.raises(Stopped):
        work()
    assert done == ["inner"]


def test_the_way_out_is_not_interrupted():
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    with stopping.deferred():
        saved = True
    assert saved


def test_evaluation_stops_between_two_batches():
    def outputs():
        yield 1
        os.kill(os.getpid(), signal.SIGTERM)
        yield 2
        yield 3

    received = []
    with pytest.raises(Stopped), stopping.deferred():
        received.extend(feeding.fetched(outputs()))
    assert received == []


def test_a_second_signal_ends_the_process():
    program = """if True:
        import os, signal
        from hep2jax import stopping
        stopping.install()
        with stopping.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            print("still here", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print("never")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "still here\n"
    assert done.returncode == -signal.SIGINT
