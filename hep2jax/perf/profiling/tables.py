"""Tables of a profile, for both the terminal and the HTML page."""

from collections.abc import Callable, Mapping, Sequence

from hep2jax.perf.aot.hlo import COMPILER, OPTIMIZER
from hep2jax.perf.profiling.summary import NUM_OPERATIONS, ModuleTime, OperationTime, Profile
from hep2jax.perf.profiling.trace import IDLE, OTHER
from hep2jax.progress import scaled
from hep2jax.report import tables as sheets
from hep2jax.report.markup import MISSING
from hep2jax.report.tables import LEAST_SHOWN, Table, megabytes, milliseconds, percent

MAX_MODULES = 25
_RATE = "FLOP/s"
_NO_DIRECTION = (IDLE, OTHER, COMPILER, OPTIMIZER)


def all_tables(
    profile: Profile,
    without_trace: Mapping[str, float],
    with_trace: Mapping[str, float],
    memory: Mapping[str, int],
) -> list[Table]:
    """The tables of the step, the modules, the operations and the memory."""
    return [step(profile, without_trace, with_trace), modules(profile), operations(profile), memory_table(memory)]


def text(tables: Sequence[Table]) -> str:
    """The tables as text for the terminal."""
    return sheets.text(tables)


def step(profile: Profile, without_trace: Mapping[str, float], with_trace: Mapping[str, float]) -> Table:
    """Time and efficiency of a step."""
    metrics: list[tuple[str, str, Callable[[float], str]]] = [
        ("step, wall clock", "step_seconds", milliseconds),
        ("images/s/device", "images_per_second_per_device", lambda value: f"{value:,.1f}"),
        ("FLOP/s, all devices", "model_flops_per_second", lambda value: scaled(value, _RATE)),
        ("MFU", "mfu", percent),
        ("roofline fraction", "roofline_fraction", percent),
        ("waiting for data", "data_wait_share", percent),
    ]
    rows = [
        [name, *(write(values[key]) if key in values else MISSING for values in (without_trace, with_trace))]
        for name, key, write in metrics
    ]
    rows.insert(1, ["step, in the trace", MISSING, milliseconds(profile.step_seconds)])
    note = "MFU and roofline fraction need a chip with published peak rates, not a CPU." * ("mfu" not in with_trace)
    return Table(title="Step", header=["", "without trace", "with trace"], rows=rows, note=note)


def modules(profile: Profile) -> Table:
    """Time of a step on a device by module; the rows add up to the time of the step."""
    busy = [row for row in profile.modules if row.module != IDLE]
    shown = [row for row in busy[:MAX_MODULES] if row.seconds >= LEAST_SHOWN]
    rest = busy[len(shown) :]
    combined = [row for row in [_combine(rest)] if row.seconds >= LEAST_SHOWN]
    idle = [row for row in profile.modules if row.module == IDLE and row.seconds >= LEAST_SHOWN]
    rows = [_module_row(row, profile) for row in [*shown, *combined, *idle]]
    slowest = next((row for row in busy if not row.module.startswith("(")), busy[0])
    note = (
        f"Slowest module: {slowest.module}, {percent(slowest.seconds / profile.step_seconds)} of the step. "
        "Operations that run at the same time share this time equally. A fusion is attributed to the module of its "
        "last operation, and an unnamed operation to the module that uses its result or whose parameter it updates. "
        "Names in parentheses are not modules. FLOP/s count the convolutions and matrix products that the program "
        "computes, including the zeros of convolutions in blocks, which the MFU above does not count."
    )
    header = ["module", "forward", "backward", "time", "share", _RATE]
    return Table(title="Modules, mean step on a device", header=header, rows=rows, note=note)


def _module_row(row: ModuleTime, profile: Profile) -> list[str]:
    seconds = (row.forward_seconds, row.backward_seconds)
    directions = [milliseconds(value) if value >= LEAST_SHOWN else MISSING for value in seconds]
    directions = [MISSING] * 2 if row.module in _NO_DIRECTION else directions
    return [row.module, *directions, milliseconds(row.seconds), percent(row.seconds / profile.step_seconds), _rate(row)]


def _combine(rows: Sequence[ModuleTime]) -> ModuleTime:
    return ModuleTime(
        module=f"({len(rows)} faster ones)",
        forward_seconds=sum(row.forward_seconds for row in rows),
        backward_seconds=sum(row.backward_seconds for row in rows),
        flops=sum(row.flops for row in rows),
    )


def operations(profile: Profile) -> Table:
    """The slowest instructions of the compiled program."""
    rows = [
        [
            row.name,
            row.module,
            "backward" if row.backward else "forward",
            row.op_name or MISSING,
            row.kind,
            milliseconds(row.seconds),
            percent(row.seconds / profile.step_seconds),
            _rate(row),
        ]
        for row in profile.operations[:NUM_OPERATIONS]
        if row.seconds >= LEAST_SHOWN
    ]
    header = ["operation", "module", "direction", "from", "kind", "time", "share", _RATE]
    return Table(title="Slowest operations", header=header, rows=rows)


def _rate(row: ModuleTime | OperationTime) -> str:
    return scaled(row.flops / row.seconds, _RATE) if row.flops and row.seconds else MISSING


def memory_table(memory: Mapping[str, int]) -> Table:
    """Memory of one device by category."""
    rows = [[name.replace("_", " "), megabytes(number)] for name, number in memory.items() if number]
    note = (
        "Arguments are the sum of the rows above them. Aliased outputs reuse the memory of arguments and are counted "
        "once in the total, which is an upper bound of the memory in use at any time."
    )
    return Table(
        title="Memory of a device",
        header=["", "size"],
        rows=rows,
        note=note if rows else "The platform does not report its memory.",
    )
