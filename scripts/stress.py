"""Interrupts runs at chosen or random moments, starts them again, and compares the parameters with an undisturbed run.

    python -m scripts.stress --signal=TERM --times=10                # ten times in each moment of MOMENTS
    python -m scripts.stress --signal=KILL --times=20 --processes=2  # at random moments, one process or all

A stopped run must leave with exit code 75, one line on stderr and a work directory from which the same command
continues; a process whose peer was killed must leave within a minute. Every run must end with the parameters of the
undisturbed one, bit for bit. Prints a line for each trial, a table, and one JSON object last.
"""

import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

from absl import flags

from hep2jax import cli, stopping
from hep2jax.errors import RunError, UsageError
from hep2jax.progress import say
from scripts import bench_common

_SIGNAL = flags.DEFINE_enum("signal", "TERM", ["TERM", "INT", "KILL"], "The signal that interrupts.")
_TIMES = flags.DEFINE_integer("times", 10, "TERM and INT: trials in each moment; KILL: trials in all.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes of a run.", lower_bound=1)
_MOMENTS = flags.DEFINE_list("moments", [], "Names of moments; empty: all.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random delays and of what is killed.")

STEPS = 24
PEER_SECONDS = 60
"""A process whose peer was killed must end within this time."""

_DATA = ["--config.data.builder_config=specimens_tiny"]
_RUN = ["hep2jax.main", "--config=configs/cnn.py", *_DATA, f"--config.train.num_steps={STEPS}"]
_RUN += ["--config.train.global_batch_size=8", "--config.train.log_every=1", "--config.train.checkpoint_every=8"]
_RUN += ["--config.train.eval_every=12", "--config.evaluation.batch_size=8"]
_FOLDS = ["scripts.cross_validate", *_RUN[1:], "--config.data.protocol=kfold", "--config.data.num_folds=2"]
_COMPARE = ["scripts.compare_specimens", "--builder_config=specimens_tiny", "--systems=cells-true-network-prevalence"]
_COMPARE += [f"--set=cells.train.{key}" for key in (f"num_steps={STEPS}", "global_batch_size=8", "log_every=1")]

MOMENTS = {
    "data preparation": (_RUN, "preparing ", 0.5),
    "first compilation": (_RUN, "gao: ", 1.0),
    "training": (_RUN, "step {}/", 0.02),
    "validation": (_RUN, "step 12/", 0.3),
    "checkpoint writing": (_RUN, "step 8/", 0.1),
    "final evaluation": (_RUN, "step 24/", 0.8),
    "between folds": (_FOLDS, "fold 2 of 2", 0.5),
    "comparison": (_COMPARE, "step {}/", 1.0),
}
"""Command, the line after which the signal comes ({}: a random step), and the longest further delay in seconds."""


class _Process:
    """A started command whose lines are collected as they come."""

    def __init__(self, arguments: Sequence[str]) -> None:
        line = [sys.executable, "-u", "-m", *arguments]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        pairs = ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        self._threads = [threading.Thread(target=self._collect, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()

    def _collect(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, start: str, seconds: float) -> bool:
        """Whether a line that begins so comes before the command ends."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not any(line.startswith(start) for line in [*self.lines, *self.errors]):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    return False
                self._changed.wait(0.1)
        return True

    def end(self, seconds: float = 300) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join()
        return code


def _start(arguments: Sequence[str], processes: int) -> list[_Process]:
    if processes == 1:
        return [_Process(arguments)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = [*arguments, f"--coordinator={address}", f"--num_processes={processes}", "--join_timeout=30"]
    return [_Process([*shared, f"--process_id={number}"]) for number in range(processes)]


def _finish(arguments: Sequence[str], processes: int) -> str:
    """Run to the end; returns what the run says of its result: the digest, or the pooled metrics."""
    started = _start(arguments, processes)
    codes = [process.end() for process in started]
    if any(codes):
        raise RunError(f"exit codes {codes}: {' | '.join(started[0].errors[-3:])}")
    return next(line for line in reversed(started[0].lines) if line.startswith(("params_digest", "{")))


def _stop(name: str, folder: pathlib.Path, data: pathlib.Path, rng: random.Random) -> tuple[str, float]:
    """Stop a run in a moment; returns the outcome and the seconds that it took to leave."""
    arguments, start, delay = MOMENTS[name]
    places = _places(arguments, folder, folder / "data" if name == "data preparation" else data)
    process = _start([*arguments, *places], 1)[0]
    if not process.wait_for(start.format(rng.randrange(2, STEPS - 1)), 300):
        return f"the moment did not come: {process.errors[-1:]}", 0.0
    time.sleep(rng.uniform(0, delay))
    begin = time.monotonic()
    process.process.send_signal(getattr(signal, f"SIG{_SIGNAL.value}"))
    code, seconds = process.end(), time.monotonic() - begin
    said = [line for line in process.errors if line.startswith("hep2jax: asked to stop")]
    last = "params_digest" if arguments is _RUN else "{"  # each fold says its own digest
    if any(line.startswith(last) for line in process.lines):
        return "finished before the signal", seconds  # which may still end the interpreter's own clearing up
    if code != stopping.EXIT_CODE or len(said) != 1 or len(process.errors) > 2:
        return f"exit code {code}: {' | '.join(process.errors[-3:])}", seconds
    return "stopped", seconds


def _places(arguments: Sequence[str], folder: pathlib.Path, data: pathlib.Path) -> list[str]:
    option = "data_dir" if arguments is _COMPARE else "config.data.data_dir"
    return [f"--workdir={folder / 'run'}", f"--{option}={data}"]


def _kill(folder: pathlib.Path, data: pathlib.Path, seconds: float, rng: random.Random) -> tuple[str, float]:
    """Kill one process or all at a random moment of a run of so many seconds; returns what was killed and when."""
    started = _start([*_RUN, *_places(_RUN, folder, data)], _PROCESSES.value)
    delay = rng.uniform(0, seconds)
    time.sleep(delay)
    chosen = started if rng.random() < 0.5 else [rng.choice(started)]
    for process in chosen:
        process.process.kill()
    begin = time.monotonic()
    for process in started:
        process.end()
    left = time.monotonic() - begin
    others = [process for process in started if process not in chosen]
    said = [len(process.errors) for process in others if process.process.returncode != 0]
    what = f"{len(chosen)} of {len(started)} after {delay:.1f} s"
    if left > PEER_SECONDS or any(count != 1 for count in said):
        return f"{what}: the others took {left:.0f} s and wrote {said} lines", left
    return what, left


def _same_metrics(result: str, expected: str, name: str) -> bool:
    """Whether a run ended as the undisturbed one. Of a comparison, the times differ."""
    if name != "comparison":
        return result == expected
    systems = [json.loads(text)["systems"] for text in (result, expected)]
    strip = [{key: {k: v for k, v in s.items() if "seconds" not in k} for key, s in of.items()} for of in systems]
    return strip[0] == strip[1]


def main(argv: Sequence[str]) -> None:
    """Run all trials."""
    del argv
    rng, rows = random.Random(_SEED.value), []
    if unknown := set(_MOMENTS.value) - set(MOMENTS):
        raise UsageError(f"--moments: no moment '{min(unknown)}'; there are {', '.join(MOMENTS)}")
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        names = _MOMENTS.value or list(MOMENTS)
        trials = ["kill"] * _TIMES.value if _SIGNAL.value == "KILL" else [n for n in names for _ in range(_TIMES.value)]
        expected: dict[int, tuple[str, float]] = {}
        for number, name in enumerate(trials):
            arguments = _RUN if name == "kill" else MOMENTS[name][0]
            if id(arguments) not in expected:
                whole = root / f"whole-{len(expected)}"
                _finish([*arguments, *_places(arguments, whole, root / "data")], 1)  # compile and prepare
                begin, again = time.monotonic(), whole / "again"
                result = _finish([*arguments, *_places(arguments, again, root / "data")], _PROCESSES.value)
                expected[id(arguments)] = result, time.monotonic() - begin
            rows.append(_trial(name, root / f"trial-{number}", root / "data", expected[id(arguments)], rng))
            say(" ".join(f"{value}" for value in rows[-1]))
    print(bench_common.table(("moment", "outcome", "seconds to leave", "ended alike"), rows))
    alike = sum(row[3] for row in rows)
    summary = {"trials": len(rows), "ended_alike": alike, "longest_seconds_to_leave": max(row[2] for row in rows)}
    print(json.dumps({"benchmark": "stress", "signal": _SIGNAL.value, "processes": _PROCESSES.value, **summary}))


def _trial(
    name: str, folder: pathlib.Path, data: pathlib.Path, expected: tuple[str, float], rng: random.Random
) -> tuple[str, str, float, bool]:
    if name == "kill":
        outcome, seconds = _kill(folder, data, expected[1], rng)
        arguments, processes = _RUN, _PROCESSES.value
    else:
        outcome, seconds = _stop(name, folder, data, rng)
        arguments, processes = MOMENTS[name][0], 1
    try:
        result = _finish([*arguments, *_places(arguments, folder, data)], processes)
    except RunError as error:
        return name, f"{outcome}; then {error}", round(seconds, 1), False
    return name, outcome, round(seconds, 1), _same_metrics(result, expected[0], name)


if __name__ == "__main__":
    cli.run_app(main)
