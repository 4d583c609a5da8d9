"""A run killed at any moment and started again ends with bitwise the same parameters."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

STEPS = 24


def _digest(output: str) -> str:
    last = output.strip().splitlines()[-1]
    assert last.startswith("params_digest ")
    return last


def _flags(cell_flags, workdir) -> list[str]:
    rhythm = [f"--config.train.num_steps={STEPS}", "--config.train.checkpoint_every=4", "--config.train.log_every=1"]
    return [*cell_flags, *rhythm, f"--workdir={workdir}"]


def _signal_after(together, flags: list[str], step: int, number: signal.Signals) -> subprocess.CompletedProcess:
    """Send a run a signal once it has printed the figures of `step`; what came of it."""
    (pid,) = together.start("hep2jax.main", *flags, processes=1, devices=1)
    while f"step {step}/" not in together.said(0):
        time.sleep(0.002)
    os.kill(pid, number)
    return together.wait()[0]


def _kill_after(together, flags: list[str], step: int) -> None:
    assert _signal_after(together, flags, step, signal.SIGKILL).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> pathlib.Path:
    """The work directory of `whole`."""
    return tmp_path_factory.mktemp("whole") / "w"


@pytest.fixture(scope="module")
def whole(command, cell_flags, directory) -> str:
    """The digest of an undisturbed run."""
    done = command("hep2jax.main", *_flags(cell_flags, directory))
    assert done.returncode == 0, done.stderr
    return _digest(done.stdout)


def test_a_damaged_checkpoint_is_set_aside(whole, directory, command, cell_flags, tmp_path):
    """The run continues from the one before, and ends alike; two lines say what happened."""
    copy = shutil.copytree(directory, tmp_path / "w")
    (data,) = (copy / "checkpoints" / str(STEPS) / "state" / "ocdbt.process_0" / "d").iterdir()
    data.write_bytes(data.read_bytes()[:1000])
    done = command("hep2jax.main", *_flags(cell_flags, copy))
    assert done.returncode == 0, done.stderr
    assert f"continuing at step {STEPS - 4} of {STEPS}" in done.stdout
    assert _digest(done.stdout) == whole
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert "24 is damaged: " in lines[0]
    assert lines[1].endswith(f"was moved to {copy / 'damaged-checkpoints' / '24-0'}")
    assert json.loads((copy / "time.json").read_text())["seconds"]["lost"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_asked_to_stop(number: signal.Signals, whole, command, together, cell_flags, tmp_path):
    """Exit code 75, one line, and not a step is lost."""
    stopped = _signal_after(together, _flags(cell_flags, tmp_path / "w"), 6, number)
    line = stopped.stderr
    assert stopped.returncode == 75, line
    match = re.fullmatch(r"hep2jax: asked to stop \((\w+)\): step (\d+) of 24 is saved in .*\n", line)
    assert match is not None, line
    assert match[1] == number.name
    resumed = command("hep2jax.main", *_flags(cell_flags, tmp_path / "w"))
    assert f"continuing at step {match[2]} of 24" in resumed.stdout
    assert _digest(resumed.stdout) == whole
    assert json.loads((tmp_path / "w" / "time.json").read_text())["seconds"]["lost"] == 0


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_random_steps(kills: int, whole, command, together, cell_flags, tmp_path):
    # A fresh choice each time: over many runs of the suite every moment is tried. The seed is in the message.
    seed = random.SystemRandom().randrange(10**6)
    for step in sorted(random.Random(seed).sample(range(2, STEPS - 1), kills)):
        _kill_after(together, _flags(cell_flags, tmp_path / "killed"), step)
    resumed = command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"))
    assert resumed.returncode == 0, resumed.stderr
    assert _digest(resumed.stdout) == whole, f"seed {seed}"
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in lines if '"split": "train"' in line]
    assert len(steps) == STEPS  # what killed runs logged after their last checkpoint is not there twice


@pytest.mark.slow
def test_killed_without_a_checkpoint(whole, command, together, cell_flags, tmp_path):
    _kill_after(together, _flags(cell_flags, tmp_path / "killed"), 2)
    resumed = command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"))
    assert _digest(resumed.stdout) == whole
