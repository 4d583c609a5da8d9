"""The account of a run's wall time over all its starts: what went into steps, and what into everything else."""

import dataclasses
import pathlib

import jax

from hep2jax import files
from hep2jax.report import provenance
from hep2jax.training.timing import PHASES, StepClock

_FILE = "time.json"


@dataclasses.dataclass
class Account:
    """Adds the clock of this start to the account in a work directory. Only process 0 writes it.

    Steps after the checkpoint from which this start continues are done again; their seconds are moved from `step` to
    `lost`. What an earlier start did after it last wrote the account is not known and therefore missing.
    """

    directory: pathlib.Path
    clock: StepClock
    first_step: int

    def __post_init__(self) -> None:
        earlier = files.kept(self.directory / _FILE)
        self.starts = earlier.get("starts", 0) + 1
        self._step = self.first_step
        self._earlier: dict[str, float] = dict.fromkeys(PHASES, 0.0) | earlier.get("seconds", {})
        lost = max(earlier.get("step", 0) - self.first_step, 0) * earlier.get("step_seconds", 0.0)
        lost = min(lost, self._earlier["step"])
        self._earlier["step"] -= lost
        self._earlier["lost"] += lost

    def write(self, step: int | None = None) -> None:
        """Save the account; `step` is the number of steps done, if it has changed."""
        self._step = self._step if step is None else step
        if jax.process_index() != 0:
            return
        seconds, done = self.seconds(), self._step - self.first_step
        del seconds["total"]
        values = {
            "starts": self.starts,
            "step": self._step,
            "step_seconds": (seconds["step"] - self._earlier["step"]) / done if done else 0.0,
            "seconds": seconds,
        }
        files.write_json(self.directory / _FILE, values)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase over all starts, and their sum as `total`."""
        now = self.clock.seconds()
        seconds = {phase: self._earlier[phase] + now[phase] for phase in PHASES}
        return {**seconds, "total": sum(seconds.values())}

    def describe(self) -> str:
        """The account in one line, without phases below half a percent."""
        seconds = self.seconds()
        total = seconds.pop("total")
        shares = sorted(((value / total, provenance.PHASES[name]) for name, value in seconds.items()), reverse=True)
        parts = ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.005)
        starts = "" if self.starts == 1 else f" in {self.starts} starts"
        return f"time: {provenance.duration(total)}{starts}: {parts}"
