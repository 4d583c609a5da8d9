"""Where the wall time of a run goes."""

import contextlib
import time
from collections.abc import Iterator

PHASES = ("init", "compile", "data_wait", "step", "evaluation", "checkpoint", "idle")


class StepClock:
    """Seconds by phase for the whole run and for the window since the last log line.

    A step is dispatched without waiting for its end; the fetch of a window's metrics waits for all of them, and
    that time counts as `step`. So windows are exact and single steps are not timed.
    """

    def __init__(self) -> None:
        self._born = time.perf_counter()
        self._total: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._window: dict[str, float] = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as the phase `name`, one of `PHASES`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._total[name] += seconds
            self._window[name] += seconds

    def window(self, images: int) -> dict[str, float]:
        """Rates since the last call: images/s and share of waiting, of the time spent waiting and stepping."""
        busy = self._window["data_wait"] + self._window["step"]
        rates = {
            "images_per_second": images / busy if busy else 0.0,
            "data_wait_share": self._window["data_wait"] / busy if busy else 0.0,
        }
        self._window = dict.fromkeys(PHASES, 0.0)
        return rates

    def seconds(self) -> dict[str, float]:
        """Seconds by phase since the start; idle is what no phase accounts for."""
        total = time.perf_counter() - self._born
        known = sum(v for name, v in self._total.items() if name != "idle")
        return {**self._total, "idle": total - known, "total": total}
