"""A run killed at any moment and started again ends with bitwise the same parameters."""

import os
import random
import signal

import pytest

STEPS = 24


def _digest(output: str) -> str:
    last = output.strip().splitlines()[-1]
    assert last.startswith("params_digest ")
    return last


def _flags(cell_flags, workdir) -> list[str]:
    rhythm = [f"--config.train.num_steps={STEPS}", "--config.train.checkpoint_every=4", "--config.train.log_every=1"]
    return [*cell_flags, *rhythm, f"--workdir={workdir}"]


def _kill_after(process, step: int) -> None:
    """SIGKILL once the run has printed the figures of `step`."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_random_steps(kills: int, command, cell_flags, tmp_path):
    whole = command("hep2jax.main", *_flags(cell_flags, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    # A fresh choice each time: over many runs of the suite every moment is tried. The seed is in the message.
    seed = random.SystemRandom().randrange(10**6)
    for step in sorted(random.Random(seed).sample(range(2, STEPS - 1), kills)):
        _kill_after(command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"), start=True), step)
    resumed = command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"))
    assert resumed.returncode == 0, resumed.stderr
    assert _digest(resumed.stdout) == _digest(whole.stdout), f"seed {seed}"
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in lines if '"split": "train"' in line]
    assert len(steps) == STEPS  # what killed runs logged after their last checkpoint is not there twice


@pytest.mark.slow
def test_killed_without_a_checkpoint(command, cell_flags, tmp_path):
    whole = command("hep2jax.main", *_flags(cell_flags, tmp_path / "whole"))
    _kill_after(command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"), start=True), 2)
    resumed = command("hep2jax.main", *_flags(cell_flags, tmp_path / "killed"))
    assert _digest(resumed.stdout) == _digest(whole.stdout)
