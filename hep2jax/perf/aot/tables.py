"""The tables of an ahead-of-time compilation, for the terminal and the page alike."""

from collections.abc import Callable, Sequence

from hep2jax.perf.aot.compiler import Compiled
from hep2jax.perf.aot.estimate import LATENCY, NO_OVERLAP, WANTED_EFFICIENCY, Estimate, Generation, scaling
from hep2jax.perf.aot.hlo import SMALLEST_PADDED
from hep2jax.report import tables as sheets
from hep2jax.report.markup import MISSING
from hep2jax.report.tables import Table, gigabytes, megabytes, milliseconds, percent

NOTICE = "estimated by the TPU compiler; no TPU was used"
MAX_MODULES = 20


def of_generation(found: Generation) -> list[Table]:
    """All tables of one TPU generation."""
    tables = [sweep(found)]
    if found.estimates:
        tables += [steps(found), memory(found), collectives(found), scaling_curve(found)]
    if best := found.recommended:
        tables += [modules(best), padding(best)]
    return tables


def sweep(found: Generation) -> Table:
    """Images per chip on the smallest slice, the best batch marked."""
    best, done = found.recommended, {e.images_per_chip: e for e in found.sweep_estimates}
    chosen = "recommended" if len(found.sweep) > 1 else "only batch tried"
    columns: list[tuple[str, Callable[[Estimate], str]]] = [
        ("HBM", lambda e: f"{gigabytes(e.memory.total)} ({100 * e.memory.total / e.memory.capacity:.0f} %)"),
        ("step", lambda e: milliseconds(e.step_seconds)),
        ("images/s/chip", lambda e: f"{e.images_per_second_per_chip:,.0f}"),
        ("MFU", lambda e: percent(e.mfu)),
        ("", lambda e: "does not fit" if not e.fits else chosen if e is best else ""),
    ]
    rows = [
        [str(one.images_per_chip), *_cells(done.get(one.images_per_chip), columns, one.record["status"])]
        for one in found.sweep
    ]
    note = "" if best else "No batch fits in HBM: try smaller ones."
    header = ["images per chip", *(name for name, _ in columns)]
    return Table(title=f"Batch sizes on {found.sweep[0].target.name}", header=header, rows=rows, note=note)


def steps(found: Generation) -> Table:
    """Cycles, seconds, FLOPs and MFU by slice."""
    columns: list[tuple[str, Callable[[Estimate], str]]] = [
        ("cycles", lambda e: f"{e.cycles / 1e6:,.2f} M"),
        ("computation", lambda e: milliseconds(e.compute_seconds)),
        ("collectives", lambda e: milliseconds(e.collective_seconds)),
        ("step", lambda e: milliseconds(e.step_seconds)),
        ("GFLOP, model", lambda e: f"{e.model_flops / 1e9:,.1f}"),
        ("GFLOP, program", lambda e: f"{e.program_flops / 1e9:,.1f}"),
        ("MFU", lambda e: percent(e.mfu)),
        ("compiled in", lambda e: f"{e.compile_seconds:.0f} s"),
    ]
    clock = found.slices[0].target.generation.clock_hz / 1e9
    peak = found.estimates[0].peak_flops / 1e12
    note = (
        f"Sum of the compiler's estimated cycles over the operations of a step, at {clock:g} GHz. FLOPs are those of "
        f"one chip in a step; MFU is model FLOP/s as a share of {peak:,.0f} bf16 TFLOP/s. "
        "Collectives: as assumed under Scaling, without latency."
    )
    batch = found.slices[0].images_per_chip
    return _by_slice(found, f"Step with {batch} images per chip", columns, note)


def memory(found: Generation) -> Table:
    """HBM by category and slice."""
    columns: list[tuple[str, Callable[[Estimate], str]]] = [
        ("arguments", lambda e: megabytes(e.memory.arguments)),
        ("outputs", lambda e: megabytes(e.memory.outputs)),
        ("aliased", lambda e: megabytes(e.memory.aliased)),
        ("temporaries", lambda e: megabytes(e.memory.temporaries)),
        ("generated code", lambda e: megabytes(e.memory.generated_code)),
        ("total", lambda e: megabytes(e.memory.total)),
        ("of capacity", lambda e: percent(e.memory.total / e.memory.capacity)),
    ]
    note = f"Aliased outputs lie where arguments lay. Capacity: {gigabytes(found.estimates[0].memory.capacity)}."
    return _by_slice(found, "HBM of a chip", columns, note)


def collectives(found: Generation) -> Table:
    """Number and bytes by kind and slice."""
    rows = [
        [e.slice_name, row.kind, str(row.count), megabytes(row.num_bytes)]
        for e in found.estimates
        for row in e.collectives
    ]
    note = "Bytes of the results on one chip, a step." if rows else "None: a single chip has nothing to exchange."
    return Table(title="Collectives", header=["slice", "kind", "number", "size"], rows=rows, note=note)


def scaling_curve(found: Generation) -> Table:
    """Weak scaling over the slices."""
    rows = [
        [
            point.slice_name,
            str(point.chips),
            f"{point.images_per_second:,.0f}",
            percent(point.efficiency),
            percent(point.efficiency_overlapped),
            percent(point.efficiency_best),
            percent(point.efficiency_worst),
            "yes" if point.scales else "no",
        ]
        for point in scaling(found.estimates)
    ]
    header = ["slice", "chips", "images/s", "efficiency, no latency", "if collectives overlapped"]
    header += ["with latency at best", "at worst", f"at least {100 * WANTED_EFFICIENCY:.0f} %"]
    note = f"Against {found.estimates[0].slice_name}, the batch per chip held constant. {NO_OVERLAP} {LATENCY}"
    return Table(title="Scaling", header=header, rows=rows, note=note)


def modules(best: Estimate) -> Table:
    """Where the cycles go."""
    rows = [
        [
            row.module,
            f"{row.forward / 1e6:,.3f}",
            f"{row.backward / 1e6:,.3f}",
            milliseconds(row.total / best.cycles * best.compute_seconds),
            percent(row.total / best.cycles),
        ]
        for row in best.modules[:MAX_MODULES]
    ]
    header = ["module", "M cycles forward", "M cycles backward", "time", "share"]
    slowest = best.modules[0]
    note = f"Slowest: {slowest.module}, {percent(slowest.total / best.cycles)} of the computation."
    left = len(best.modules) - len(rows)
    if left > 0:
        note += f" {left} faster ones are not shown."
    note += " A fusion counts for the module of its last operation; in parentheses, what belongs to none."
    return Table(title=f"Modules on {_where(best)}", header=header, rows=rows, note=note)


def padding(best: Estimate) -> Table:
    """Modules whose tiled layouts waste over a tenth."""
    rows = [
        [row.module, percent(row.waste), megabytes(row.padded_bytes - row.num_bytes), row.worst]
        for row in best.padding[:MAX_MODULES]
    ]
    note = (
        f"Share of the bytes of a module's results in HBM (of at least {SMALLEST_PADDED >> 10} KiB) that only fill up "
        "tiles, mostly of 8 sublanes x 128 lanes; those above 10 %, the worst array with its layout."
    )
    if not rows:
        note = f"No module wastes over 10 %. {note}"
    return Table(
        title=f"Padded widths on {_where(best)}", header=["module", "wasted", "bytes", "worst"], rows=rows, note=note
    )


def text(tables: Sequence[Table]) -> str:
    """For the terminal."""
    return sheets.text(tables, NOTICE)


def _by_slice(
    found: Generation, title: str, columns: Sequence[tuple[str, Callable[[Estimate], str]]], note: str
) -> Table:
    done = {e.slice_name: e for e in found.estimates}
    rows = [_slice_row(one, done.get(one.target.name), columns) for one in found.slices]
    return Table(title=title, header=["slice", *(name for name, _ in columns)], rows=rows, note=note)


def _slice_row(
    one: Compiled, found: Estimate | None, columns: Sequence[tuple[str, Callable[[Estimate], str]]]
) -> list[str]:
    return [one.target.name, *_cells(found, columns, one.record["status"])]


def _cells(found: Estimate | None, columns: Sequence[tuple[str, Callable[[Estimate], str]]], status: str) -> list[str]:
    """A row without its name; of a program that there is not, dashes and the reason."""
    if found is None:
        return [*[MISSING] * (len(columns) - 1), status]
    return [cell(found) for _, cell in columns]


def _where(best: Estimate) -> str:
    return f"{best.slice_name}, {best.images_per_chip} images per chip"
