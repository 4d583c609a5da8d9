"""The account of time goes on over starts, and steps that are done again count as lost."""

import json

import pytest

from hep2jax.training.goodput import Account
from hep2jax.training.timing import StepClock


class _Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _start(directory, first_step: int, **seconds: float) -> Account:
    """A start of a run that spends seconds in phases."""
    time = _Time()
    account = Account(directory, StepClock(time), first_step)
    for phase, spent in seconds.items():
        with account.clock.phase(phase):
            time.now += spent
    return account


def test_one_start(tmp_path):
    account = _start(tmp_path, 0, init=2.0, step=6.0, evaluation=2.0)
    account.write(30)
    assert account.seconds()["total"] == 10
    assert account.describe() == "time: 10.0 s: training steps 60%, start-up 20%, evaluation 20%"


def test_steps_done_again_are_lost(tmp_path):
    """Killed after step 40, continued at 30: ten of the forty steps, 2 of 8 seconds, are done again."""
    _start(tmp_path, 0, init=2.0, step=8.0).write(40)
    account = _start(tmp_path, 30, init=1.0, step=4.0)
    seconds = account.seconds()
    assert seconds["step"] == pytest.approx(6 + 4)
    assert seconds["lost"] == pytest.approx(2)
    assert seconds["init"] == pytest.approx(3)
    assert seconds["total"] == pytest.approx(15)
    assert account.describe().startswith(
        "time: 15.0 s in 2 starts: training steps 67%, start-up 20%, steps done again 13%"
    )


def test_a_stop_that_saved_its_last_step_loses_nothing(tmp_path):
    _start(tmp_path, 0, step=8.0).write(40)
    _start(tmp_path, 40, step=1.0).write(45)
    assert _start(tmp_path, 45).seconds()["lost"] == 0


def test_a_damaged_account_begins_again(tmp_path):
    (tmp_path / "time.json").write_text('{"starts": ')
    account = _start(tmp_path, 0, step=1.0)
    account.write(1)
    assert json.loads((tmp_path / "time.json").read_text())["starts"] == 1
