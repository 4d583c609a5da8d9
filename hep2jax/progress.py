"""The live display of a run: a bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

STARVING = 0.05
"""Share of waiting for data beyond which the input holds up the devices."""


def say(message: str) -> None:
    """One line for the person who watches."""
    print(message, flush=True)


def scaled(value: float, unit: str) -> str:
    """A number of units with a decimal prefix: `7.0 GFLOP/s`, `350 kB`; three figures, or one decimal below 100."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0
    while value >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.{0 if value >= 99.95 else 1}f} {prefixes[power]}{unit}"


class TrainingDisplay:
    """Step, loss, FLOP/s, images/s, share of waiting and time left. Use as a context manager.

    Says once what to do where the input starves the devices. The first window is not judged: the pipeline fills in it.
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
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(),
            disable=not self._live,
        )
        self._task = self._bar.add_task("train", total=num_steps, completed=first_step, figures="")

    def __enter__(self) -> "TrainingDisplay":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """A step has been dispatched."""
        self._bar.update(self._task, completed=step)

    def window(self, step: int, figures: dict[str, float], batch: int) -> None:
        """Show a window's figures: `loss` and what `timing.rates` and `timing.efficiency` return."""
        left = (self._num_steps - step) * batch / max(figures["images_per_second"], 1e-9)
        text = _summary(figures)
        self._bar.update(self._task, figures=text)
        if self._plain:
            say(f"step {step}/{self._num_steps}  {text}  {left:.0f} s left")
        self._windows += 1
        if self._windows > 1 and figures["data_wait_share"] > STARVING and not self._warned:
            self._warned = True
            say(_advice(figures["data_wait_share"]))


def _summary(figures: dict[str, float]) -> str:
    parts = [f"loss {figures['loss']:.4f}", scaled(figures["model_flops_per_second"], "FLOP/s")]
    if "mfu" in figures:
        parts.append(f"MFU {100 * figures['mfu']:.1f} %")
    parts.append(f"{figures['images_per_second']:.1f} img/s")
    parts.append(f"waiting for data {100 * figures['data_wait_share']:.1f} %")
    return "  ".join(parts)


def _advice(share: float) -> str:
    return (
        f"warning: the devices wait for data {100 * share:.0f} % of the time: batches are made too slowly. "
        "Raise train.prefetch if the waiting comes in bursts; on a host with few cores let the device warp the crops, "
        "if it can (data.warp); raise train.global_batch_size, which spreads the cost of making and sending a batch"
    )
