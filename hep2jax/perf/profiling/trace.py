"""Reads the executed operations from a profiler trace, and divides the time among them."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

WINDOW, STEP = "profiled steps", "train"
"""Names of two annotations: around all steps, including the wait for the last one, and around each step."""
OTHER, IDLE = "(copies, other programs)", "(no operation running)"

_DEVICE = re.compile(r"^/device:(?:GPU|TPU):(\d+)$")
_HOST = "/host:CPU"
_END = "end: "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One execution of an operation."""

    name: str
    """Name of the instruction; `OTHER` if it is not an instruction of the program."""
    device: int
    start: float
    end: float
    """Start and end in nanoseconds of the trace."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """The traced steps."""

    start: float
    end: float
    """Start (before the first batch is requested) and end (after the last step), in nanoseconds of the trace."""
    spans: Sequence[Span]


def newest(folder: pathlib.Path) -> pathlib.Path:
    """The newest trace in a folder."""
    return max(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime_ns)


def read(data: Any, program: str) -> Trace:
    """Read the operations in the annotated window of a `jax.profiler.ProfileData`.

    `program` is the name of the compiled module, such as `jit_step`.
    """
    planes = {plane.name: list(plane.lines) for plane in data.planes}
    on_host = [event for line in planes.get(_HOST, ()) for event in line.events]
    (window,) = (event for event in on_host if event.name == WINDOW)
    spans = [span for name, lines in planes.items() for span in _on_device(name, lines, program)]
    spans = spans or _on_cpu(on_host, program)
    start, end = window.start_ns, window.start_ns + window.duration_ns
    inside = [span for span in spans if span.end > start and span.start < end]
    # The clocks of host and device differ slightly, so the window is extended to include operations that overlap it.
    start, end = min([start, *(span.start for span in inside)]), max([end, *(span.end for span in inside)])
    return Trace(start=start, end=end, spans=inside)


def _on_device(plane: str, lines: Sequence[Any], program: str) -> list[Span]:
    """Operations of a GPU or TPU; empty if the plane belongs to something else."""
    device = _DEVICE.match(plane)
    if not device:
        return []
    return [_device_span(event, int(device[1]), program) for line in operation_lines(lines) for event in line.events]


def operation_lines(lines: Sequence[Any]) -> list[Any]:
    """The lines of a GPU or TPU that contain operations: the line of XLA operations, or else the streams of kernels."""
    operations = [line for line in lines if line.name == "XLA Ops"]
    return operations or [line for line in lines if line.name.startswith("Stream")]


def _device_span(event: Any, device: int, program: str) -> Span:
    stats = dict(event.stats)
    # An event of a TPU may be named by the complete line of the program: `%fusion.3 = bf16[8,128]{1,0} fusion(...)`.
    name = str(stats.get("hlo_op") or event.name.partition(" = ")[0].lstrip("%"))
    in_program = stats.get("hlo_module", program) == program
    end = event.start_ns + event.duration_ns
    return Span(name=name if in_program else OTHER, device=device, start=event.start_ns, end=end)


def _on_cpu(events: Iterable[Any], program: str) -> list[Span]:
    """Operations of XLA's CPU backend.

    The duration of an event covers only the thread that starts the operation. Convolutions continue in other threads,
    and an event `end: <name>` marks their end; it contains the number of the event that it ends.
    """
    started, ended = [], {}
    for event in events:
        if event.name.startswith(_END):
            ended[dict(event.stats).get("_c")] = event.start_ns
        elif "hlo_op" in (stats := dict(event.stats)):
            started.append((event, stats))
    return [
        Span(
            name=str(stats["hlo_op"]) if stats.get("hlo_module") == program else OTHER,
            device=int(stats.get("device_ordinal", 0)),
            start=event.start_ns,
            end=max(event.start_ns + event.duration_ns, ended.get(stats.get("_p"), 0)),
        )
        for event, stats in started
    ]


def divide(trace: Trace, containers: Collection[str]) -> dict[str, float]:
    """Nanoseconds by operation, averaged over the devices; together with `IDLE` they add up to the trace duration.

    Operations that run at the same time on a device share this time equally. `containers` are operations that only run
    other operations, such as loops: they get the time in which none of the other operations runs.
    """
    by_device = collections.defaultdict(list)
    for span in trace.spans:
        by_device[span.device].append(span)
    total = collections.defaultdict(float)
    for spans in by_device.values():
        for name, time in _of_device(spans, containers).items():
            total[name] += time / len(by_device)
    return {**total, IDLE: trace.end - trace.start - sum(total.values())}


def _of_device(spans: Sequence[Span], containers: Collection[str]) -> Mapping[str, float]:
    times, running, before = collections.defaultdict(float), collections.Counter(), 0.0
    edges = [(span.start, 1, span.name) for span in spans] + [(span.end, -1, span.name) for span in spans]
    for moment, change, name in sorted(edges):
        for operation, time in _shares(running, containers, moment - before).items():
            times[operation] += time
        running[name] += change
        if not running[name]:
            del running[name]
        before = moment
    return times


def _shares(running: Mapping[str, int], containers: Collection[str], time: float) -> dict[str, float]:
    names = [name for name in running if name not in containers] or list(running)
    return {name: time / len(names) for name in names}


def executions(trace: Trace) -> Mapping[str, float]:
    """Number of executions of each operation, averaged over the devices."""
    devices = len({span.device for span in trace.spans})
    counts = collections.Counter(span.name for span in trace.spans)
    return {name: count / devices for name, count in counts.items()}
