"""The live display of a run: a bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def say(message: str) -> None:
    """One line for the person who watches."""
    print(message, flush=True)


class TrainingDisplay:
    """Step, loss, images/s, share of waiting and time left. Use as a context manager."""

    def __init__(self, first_step: int, num_steps: int, *, enabled: bool) -> None:
        self._num_steps = num_steps
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
        """Show a window's figures."""
        left = (self._num_steps - step) * batch / max(figures["images_per_second"], 1e-9)
        text = (
            f"loss {figures['loss']:.4f}  {figures['images_per_second']:.1f} img/s  "
            f"waiting for data {100 * figures['data_wait_share']:.1f} %"
        )
        self._bar.update(self._task, figures=text)
        if self._plain:
            say(f"step {step}/{self._num_steps}  {text}  {left:.0f} s left")
