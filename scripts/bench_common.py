"""Functions shared by the benchmarks: interleaved measurements, and a description of the machine."""

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

Measurement = TypeVar("Measurement")

Rounds = dict[str, list[float]]
"""The measurements of each variant, one per round."""


def interleaved(variants: Mapping[str, Callable[[], Measurement]], repeats: int) -> dict[str, list[Measurement]]:
    """Measure every variant once in each of `repeats` rounds, so that other load on the machine affects all variants.

    Every second round is in reverse order, so that no variant always follows the same one.
    """
    rounds: dict[str, list[Measurement]] = {name: [] for name in variants}
    for number in range(repeats):
        names = list(variants)
        for name in names[::-1] if number % 2 else names:
            rounds[name].append(variants[name]())
    return rounds


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per step, over several rounds of many steps."""

    median: float
    low: float
    """Tenth percentile."""
    high: float
    """Ninetieth percentile."""
    rounds: int
    """Number of rounds."""


def time_steps(run_steps: Callable[[int], None], seconds: float, *, round_seconds: float = 0.1) -> Timing:
    """Time steps for about `seconds`, in rounds of about `round_seconds`.

    Args:
        run_steps: executes this number of steps and waits for the last one. Everything must be compiled already.
        seconds: duration of all rounds, of which there are at least three.
        round_seconds: duration of one round.
    """
    run_steps(1)
    start = time.perf_counter()
    run_steps(2)
    steps = max(1, round(2 * round_seconds / (time.perf_counter() - start)))
    rounds, end = [], time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run_steps(steps)
        rounds.append((time.perf_counter() - start) / steps)
    low, median, high = np.quantile(rounds, [0.1, 0.5, 0.9]).tolist()
    return Timing(median, low, high, len(rounds))


def medians(rounds: Rounds) -> dict[str, float]:
    """The median measurement of each variant."""
    return {name: statistics.median(values) for name, values in rounds.items()}


def ratios(rounds: Rounds, reference: str) -> dict[str, float]:
    """Median over the rounds of each variant's measurement divided by that of `reference` in the same round."""
    reference_values = rounds[reference]
    return {
        name: statistics.median(value / base for value, base in zip(values, reference_values, strict=True))
        for name, values in rounds.items()
    }


def machine() -> dict[str, Any]:
    """Hardware, versions and number of threads of this machine."""
    versions = {name: _version(name) for name in LIBRARIES}
    return {
        "processor": _processor(),
        "threads": num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "devices": [device.device_kind for device in jax.local_devices()],
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def num_threads() -> int:
    """Number of processors that this process may use. XLA uses as many threads, and the PyTorch peers get the same."""
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
    """Raise UsageError if PyTorch, an extra that only the benchmarks need, is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("PyTorch is not installed: pip install -e '.[bench]'")


def say_where(where: Mapping[str, Any]) -> None:
    """Print a line about the machine, to be followed by a table."""
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats have three significant digits."""
    lines = [list(head), ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
