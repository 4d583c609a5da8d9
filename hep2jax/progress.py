"""The live display of a run: a bar on a terminal, plain lines elsewhere."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hep2jax.errors import RunError, UsageError

STARVING = 0.05
"""Share of time spent waiting for data above which the user is warned that the input is too slow."""


_names: dict[str, str] = {}


@contextlib.contextmanager
def called(path: pathlib.Path, name: str) -> Iterator[None]:
    """In this block, messages, and errors that leave it, name a path otherwise."""
    _names[str(path)] = name
    try:
        yield
    except (UsageError, RunError) as error:
        error.args = (shown(str(error)),)
        raise
    finally:
        del _names[str(path)]


def shown(text: str) -> str:
    """A text with the names that paths have in messages (see `called`)."""
    for path, name in _names.items():
        text = text.replace(path, name)
    return text


def say(message: str) -> None:
    """Print one line to standard output at once."""
    print(shown(message), flush=True)


def warn(message: str) -> None:
    """Print one line to standard error at once."""
    print(f"hep2jax: {shown(message)}", file=sys.stderr, flush=True)


def scaled(value: float, unit: str) -> str:
    """A value with its unit and a decimal prefix, such as `7.0 GFLOP/s` or `350 kB`; one decimal place below 100."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0
    while value >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.{0 if value >= 99.95 else 1}f} {prefixes[power]}{unit}"


class Pace:
    """Prints how far a long job is, at most every `every` seconds: number done, rate and time left.

    The first call starts the clock, so that the rate is not that of what happens once, such as compilation.
    """

    def __init__(
        self, total: int, noun: str, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._noun, self._every, self._clock = total, noun, every, clock
        self._first: tuple[int, float] | None = None
        self._said = 0.0

    def advance(self, done: int) -> None:
        """Tell that `done` of all are done."""
        now = self._clock()
        if self._first is None:
            self._first, self._said = (done, now), now
        if now - self._said < self._every or done == self._first[0]:
            return
        self._said = now
        rate = (done - self._first[0]) / (now - self._first[1])
        say(f"{done} of {self._total} {self._noun}  {rate:.1f}/s  {(self._total - done) / rate:.0f} s left")


class TrainingDisplay:
    """Shows step, loss, FLOP/s, images/s, share of time spent waiting for data, and time left; a context manager.

    If the devices wait for data, it advises once what to do. The first window does not count for this, because the
    pipeline is still filling then.
    """

    def __init__(self, first_step: int, num_steps: int, *, enabled: bool) -> None:
        self._num_steps = num_steps
        self._windows = 0
        self._warned = not enabled
        self._live = enabled and sys.stdout.isatty()
        self._plain = enabled and not self._live
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=Console(),
            disable=not self._live,
        )
        self._task = self._bar.add_task("train", total=num_steps, completed=first_step, metrics="")

    def __enter__(self) -> "TrainingDisplay":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Show that `step` has been dispatched."""
        self._bar.update(self._task, completed=step)

    def window(self, step: int, metrics: dict[str, float], batch: int) -> None:
        """Show the metrics of a window of steps: `loss`, and those of `timing.rates` and `timing.efficiency`."""
        seconds_left = (self._num_steps - step) * batch / max(metrics["images_per_second"], 1e-9)
        text = _summary(metrics)
        self._bar.update(self._task, metrics=text)
        if self._plain:
            say(f"step {step}/{self._num_steps}  {text}  {seconds_left:.0f} s left")
        self._windows += 1
        if self._windows > 1 and metrics["data_wait_share"] > STARVING and not self._warned:
            self._warned = True
            say(_advice(metrics["data_wait_share"]))


def _summary(metrics: dict[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.4f}", scaled(metrics["model_flops_per_second"], "FLOP/s")]
    if "mfu" in metrics:
        parts.append(f"MFU {100 * metrics['mfu']:.1f} %")
    parts.append(f"{metrics['images_per_second']:.1f} img/s")
    parts.append(f"waiting for data {100 * metrics['data_wait_share']:.1f} %")
    return "  ".join(parts)


def _advice(share: float) -> str:
    return (
        f"warning: the devices wait for data {100 * share:.0f} % of the time, because batches are made too slowly. "
        "Raise train.prefetch if the waiting comes in bursts; on a host with few cores, let the device cut the crops "
        "(data.warp=device); or raise train.global_batch_size, so that fewer batches are made and sent"
    )
