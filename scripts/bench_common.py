"""What the benchmarks share: sides that take turns, and the words on where they ran."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from hep2jax.errors import UsageError

LIBRARIES = ("jax", "flax", "grain", "torch", "opencv-python-headless")

Figure = TypeVar("Figure")

Rounds = dict[str, list[float]]
"""The figures of each side, one a round."""


def interleaved(sides: Mapping[str, Callable[[], Figure]], repeats: int) -> dict[str, list[Figure]]:
    """One figure of every side in each of `repeats` rounds, so that a busy moment of the machine hits all sides.

    Every other round goes backwards: no side always follows the same one.
    """
    rounds: dict[str, list[Figure]] = {name: [] for name in sides}
    for number in range(repeats):
        names = list(sides)
        for name in names[::-1] if number % 2 else names:
            rounds[name].append(sides[name]())
    return rounds


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a step over several rounds of many steps."""

    median: float
    low: float
    """Tenth percentile."""
    high: float
    """Ninetieth percentile."""
    rounds: int


def timed(several: Callable[[int], None], seconds: float, *, round_seconds: float = 0.1) -> Timing:
    """Time a step in rounds, each of as many steps as take `round_seconds`, for about `seconds`.

    Args:
        several: does that many steps and waits for the end of the last one. Everything is compiled already.
        seconds: of all rounds; there are at least three.
        round_seconds: of one round.
    """
    several(1)
    start = time.perf_counter()
    several(2)
    steps = max(1, round(2 * round_seconds / (time.perf_counter() - start)))
    rounds, end = [], time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        several(steps)
        rounds.append((time.perf_counter() - start) / steps)
    low, median, high = np.quantile(rounds, [0.1, 0.5, 0.9]).tolist()
    return Timing(median, low, high, len(rounds))


def medians(rounds: Rounds) -> dict[str, float]:
    """The median figure of each side."""
    return {name: statistics.median(figures) for name, figures in rounds.items()}


def ratios(rounds: Rounds, reference: str) -> dict[str, float]:
    """Median over the rounds of a side's figure divided by that of the side `reference` in the same round."""
    below = rounds[reference]
    return {
        name: statistics.median(figure / base for figure, base in zip(figures, below, strict=True))
        for name, figures in rounds.items()
    }


def machine() -> dict[str, Any]:
    """Hardware, versions and threads."""
    found = {name: _version(name) for name in LIBRARIES}
    return {
        "processor": _processor(),
        "threads": num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "devices": [device.device_kind for device in jax.local_devices()],
        "python": platform.python_version(),
        **{name: version for name, version in found.items() if version},
    }


def num_threads() -> int:
    """The processors that this process may use: XLA takes as many threads, and the peers are given as many."""
    return len(os.sched_getaffinity(0))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def need_torch() -> None:
    """Raises UsageError where PyTorch, an extra that only the benchmarks need, is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("PyTorch is not installed: pip install -e '.[bench]'")


def say_where(where: Mapping[str, Any]) -> None:
    """One line on the machine, above a table."""
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three digits that count."""
    lines = [list(head), ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
