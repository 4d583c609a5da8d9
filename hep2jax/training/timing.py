"""Where the wall time of a run goes, and how far the devices get in it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import jax

from hep2jax.perf.chips import Chip

PHASES = ("init", "compile", "data_wait", "host_to_device", "step", "evaluation", "checkpoint", "idle")


class StepClock:
    """Seconds by phase, for the whole run and for the window since the last log line.

    Every moment since the clock was made belongs to one phase: the innermost open one, or `idle` where none is open.
    So the phases add up to the wall time. What came before the clock (imports) is not counted.

    A step is dispatched without waiting for its end; the fetch of a window's metrics waits for all of them, and that
    time counts as `step`. So windows are exact and single steps are not timed.

    Batches are put on the devices by the prefetching thread while steps run: that costs no wall time unless batches
    come late, and then it is part of `data_wait`. Only the first batch's transfer has no step to hide behind:
    `host_to_device` is the wait for it.

    Args:
        now: seconds from any origin, never falling.
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
        """Count the innermost open phase as `name` instead, where it turns out to have been that."""
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
        seconds: of the window by phase, as `StepClock.window` returns them.
        steps: dispatched in the window, at least 1.
        batch: images in a step over all devices and processes.
        devices: of all processes.

    Returns:
        `step_seconds`, mean time from one step to the next: waiting for data is in it, evaluations and checkpoints are
        not. `images_per_second` (all devices) and `images_per_second_per_device` at that pace. `data_wait_share`, of
        waiting and stepping. `evaluation_share` and `checkpoint_share`, of the window's wall time: those between the
        log line before and this one.
    """
    busy = seconds["data_wait"] + seconds["step"]
    whole = sum(seconds.values())
    images = _share(steps * batch, busy)
    return {
        "images_per_second": images,
        "images_per_second_per_device": images / devices,
        "step_seconds": busy / steps,
        "data_wait_share": _share(seconds["data_wait"], busy),
        "evaluation_share": _share(seconds["evaluation"], whole),
        "checkpoint_share": _share(seconds["checkpoint"], whole),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The work of one device in one step."""

    flops: float
    """Of the network as it is published (see `hep2jax.perf.model_flops`): this device's share of the batch."""
    bytes_accessed: float
    """Operands and results of every kernel. Those that stay in VMEM or in a cache are counted too, so memory traffic
    is less; the kernels that XLA calls from libraries (on GPUs) are left out, so there it can be more."""
    memory_bytes: int
    """Arguments, results that take no argument's place, temporaries and code; 0 where the platform does not say."""


def analyse(compiled: jax.stages.Compiled, model_flops: float) -> Program:
    """Read XLA's analysis of a compiled program.

    Args:
        compiled: one device's part of a step.
        model_flops: of the step over all devices. XLA's own count of the program does not serve: it has the zeros of
            formulations in blocks, what every device repeats, and on GPUs not what library calls compute (jax issues
            16008, 17912).
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
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return kept + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def efficiency(
    program: Program, step_seconds: float, *, devices: int, chip: Chip | None, dtype: str
) -> dict[str, float]:
    """How well a step uses the devices.

    Args:
        program: of one device.
        step_seconds: as measured, waiting for data included.
        devices: of all processes.
        chip: that each device is; None where its peaks are not known.
        dtype: in which convolutions and matrix products are computed, `float32` or `bfloat16`.

    Returns:
        `model_flops_per_second` of all devices together. Where the chip is known also `mfu`, a device's FLOP/s over the
        chip's peak in `dtype`, and `roofline_fraction`, the time that a step must take by arithmetic or by memory
        traffic, whichever is longer (Williams et al. 2009), over the time that it takes. Traffic is `bytes_accessed`,
        mostly more than what reaches memory: so the bound is longer than the true one and the fraction flatters;
        beyond 1 it says that much of the traffic stayed on the chip. On GPUs, where library calls are not counted, it
        may err the other way.
    """
    per_device = program.flops / step_seconds
    figures = {"model_flops_per_second": per_device * devices}
    peak = chip.peak_flops(dtype) if chip else None
    if chip is None or peak is None:
        return figures
    bound = max(program.flops / peak, program.bytes_accessed / chip.hbm_bandwidth)
    return figures | {"mfu": per_device / peak, "roofline_fraction": bound / step_seconds}
