"""How a run spends its wall time, and how well it uses the devices."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import jax

from hep2jax.perf.chips import Chip

PHASES = ("init", "compile", "data_wait", "host_to_device", "step", "evaluation", "checkpoint", "lost", "idle")
"""`lost` is the time of steps that are done again because a run was killed after them (see `goodput.Account`)."""


class StepClock:
    """Seconds by phase, for the whole run and for the window since the last log line.

    Every moment since the clock was created belongs to one phase: the innermost open one, or `idle` if none is open.
    So the phases add up to the wall time. The time before the clock was created (imports) is not counted.

    A step is dispatched without waiting for its end. Fetching the metrics of a window waits for all its steps, and that
    time counts as `step`. So windows are exact, and single steps are not timed.

    The prefetching thread transfers batches to the devices while steps run. That costs no wall time unless batches
    come late, and then it is part of `data_wait`. Only the transfer of the first batch does not overlap with a step:
    `host_to_device` is the wait for it.

    Args:
        now: returns seconds from any origin, and never less than before.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._counted_to = now()
        self._open: list[str] = []
        self._total: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._before_window = dict(self._total)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as the phase `name`, one of `PHASES`; a phase opened inside it counts for itself."""
        if name not in self._total:
            raise KeyError(name)
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def recount(self, name: str) -> None:
        """Count the innermost open phase as `name` instead of the name that it was opened with."""
        self._open[-1] = name

    def _count(self) -> None:
        now = self._now()
        self._total[self._open[-1] if self._open else "idle"] += now - self._counted_to
        self._counted_to = now

    def window(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        self._count()
        seconds = {name: total - self._before_window[name] for name, total in self._total.items()}
        self._before_window = dict(self._total)
        return seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by phase since the start, and their sum as `total`."""
        self._count()
        return {**self._total, "total": sum(self._total.values())}


def rates(seconds: dict[str, float], *, steps: int, batch: int, devices: int) -> dict[str, float]:
    """Speed in a window of training.

    Args:
        seconds: seconds of the window by phase, as `StepClock.window` returns them.
        steps: number of steps dispatched in the window, at least 1.
        batch: number of images in a step over all devices and processes.
        devices: number of devices of all processes.

    Returns:
        `step_seconds`, the mean time from one step to the next, which includes waiting for data but not evaluations and
        checkpoints. `images_per_second` (all devices) and `images_per_second_per_device` at that pace.
        `data_wait_share`, the share of waiting for data in that time. `evaluation_share` and `checkpoint_share`, the
        shares of evaluations and checkpoints since the previous log line in the wall time of the window.
    """
    busy = seconds["data_wait"] + seconds["step"]
    total = sum(seconds.values())
    images = _share(steps * batch, busy)
    return {
        "images_per_second": images,
        "images_per_second_per_device": images / devices,
        "step_seconds": busy / steps,
        "data_wait_share": _share(seconds["data_wait"], busy),
        "evaluation_share": _share(seconds["evaluation"], total),
        "checkpoint_share": _share(seconds["checkpoint"], total),
    }


def _share(part: float, total: float) -> float:
    return part / total if total else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The work of one device in one step."""

    flops: float
    """FLOPs of the network as it is published (see `hep2jax.perf.model_flops`), for the device's share of the batch."""
    bytes_accessed: float
    """Operands and results of every kernel. Those that stay in VMEM or in a cache are counted too, so memory traffic is
    lower. The kernels that XLA calls from libraries (on GPUs) are left out, so there the traffic can be higher."""
    memory_bytes: int
    """Arguments, results that do not reuse an argument's memory, temporaries and code; 0 if this is not reported."""


def analyse(compiled: jax.stages.Compiled, model_flops: float) -> Program:
    """Read XLA's analysis of a compiled program.

    Args:
        compiled: one device's part of a step.
        model_flops: FLOPs of the step over all devices. XLA's own count of the program is not used: it includes the
            zeros of formulations in blocks and the work that every device repeats, and on GPUs it leaves out what
            library calls compute (jax issues 16008, 17912).
    """
    analysis = compiled.cost_analysis() or {}
    devices = len(jax.tree.leaves(compiled.input_shardings)[0].device_set)
    return Program(
        flops=model_flops / devices,
        bytes_accessed=max(analysis.get("bytes accessed", 0.0), 0.0),
        memory_bytes=_memory_bytes(compiled),
    )


def _memory_bytes(compiled: jax.stages.Compiled) -> int:
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    inputs_and_outputs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return inputs_and_outputs + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def efficiency(
    program: Program, step_seconds: float, *, devices: int, chip: Chip | None, dtype: str
) -> dict[str, float]:
    """How well a step uses the devices.

    Args:
        program: the work of one device.
        step_seconds: the measured time of a step, including waiting for data.
        devices: number of devices of all processes.
        chip: the chip of each device; None if its peaks are not known.
        dtype: dtype of convolutions and matrix products, `float32` or `bfloat16`.

    Returns:
        `model_flops_per_second` of all devices together. If the chip is known also `mfu`, a device's FLOP/s divided by
        the chip's peak in `dtype`, and `roofline_fraction`, the shortest time that arithmetic or memory traffic allow,
        whichever is longer (Williams et al. 2009), divided by the time that the step takes. The traffic is taken to be
        `bytes_accessed`, which is mostly more than what reaches memory: so the bound is longer than the true one, and
        the fraction is too favourable. A fraction above 1 means that much of the traffic stayed on the chip. On GPUs,
        where library calls are not counted, it may err the other way.
    """
    per_device = program.flops / step_seconds
    rates = {"model_flops_per_second": per_device * devices}
    peak = chip.peak_flops(dtype) if chip else None
    if chip is None or peak is None:
        return rates
    bound = max(program.flops / peak, program.bytes_accessed / chip.hbm_bandwidth)
    return rates | {"mfu": per_device / peak, "roofline_fraction": bound / step_seconds}
