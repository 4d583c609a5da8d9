"""Tables of an ahead-of-time compilation, for both the terminal and the HTML page."""

from collections.abc import Callable, Sequence

from hep2jax.config import Config
from hep2jax.perf import advice
from hep2jax.perf.aot.compiler import Compiled
from hep2jax.perf.aot.estimate import LATENCY, NO_OVERLAP, WANTED_EFFICIENCY, Estimate, Generation, evidence, scaling
from hep2jax.perf.aot.hlo import SMALLEST_PADDED
from hep2jax.report import tables as sheets
from hep2jax.report.markup import MISSING
from hep2jax.report.tables import LEAST_SHOWN, Table, gigabytes, megabytes, milliseconds, percent

NOTICE = "estimated by the TPU compiler; no TPU was used"
MAX_MODULES = 20


def generation_tables(generation: Generation, config: Config) -> list[Table]:
    """All tables of one TPU generation; `config` is the configuration that was compiled."""
    tables = [sweep(generation)]
    if generation.estimates:
        tables += [steps(generation), memory(generation), collectives(generation), scaling_curve(generation)]
    if best := generation.recommended:
        tried = any(compiled.images_per_chip > best.images_per_chip for compiled in generation.sweep)
        found = evidence(best, generation.chip, larger_batches_tried=tried)
        tables += [modules(best), padding(best), advice.table(found, config)]
    return tables


def sweep(generation: Generation) -> Table:
    """Batch sizes on the smallest slice, with the recommended one marked."""
    best, estimates = generation.recommended, {e.images_per_chip: e for e in generation.sweep_estimates}
    best_label = "recommended" if len(generation.sweep) > 1 else "only batch tried"
    columns: list[tuple[str, Callable[[Estimate], str]]] = [
        ("HBM", lambda e: f"{gigabytes(e.memory.total)} ({100 * e.memory.total / e.memory.capacity:.0f} %)"),
        ("step", lambda e: milliseconds(e.step_seconds)),
        ("images/s/chip", lambda e: f"{e.images_per_second_per_chip:,.0f}"),
        ("MFU", lambda e: percent(e.mfu)),
        ("", lambda e: "does not fit" if not e.fits else best_label if e is best else ""),
    ]
    rows = [
        [
            str(compiled.images_per_chip),
            *_cells(estimates.get(compiled.images_per_chip), columns, compiled.record["status"]),
        ]
        for compiled in generation.sweep
    ]
    note = "" if best else "No batch size fits in HBM: try smaller ones."
    header = ["images per chip", *(name for name, _ in columns)]
    return Table(title=f"Batch sizes on {generation.sweep[0].target.name}", header=header, rows=rows, note=note)


def steps(generation: Generation) -> Table:
    """Cycles, times, FLOPs and MFU by slice."""
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
    clock = generation.slices[0].target.generation.clock_hz / 1e9
    peak = generation.estimates[0].peak_flops / 1e12
    note = (
        f"Computation: the compiler's estimated cycles, summed over the operations of a step, at {clock:g} GHz. "
        f"FLOPs are per chip and step; MFU is model FLOP/s as a share of {peak:,.0f} bf16 TFLOP/s. "
        "Collectives: as assumed under Scaling, without latency."
    )
    batch = generation.slices[0].images_per_chip
    return _by_slice(generation, f"Step with {batch} images per chip", columns, note)


def memory(generation: Generation) -> Table:
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
    capacity = gigabytes(generation.estimates[0].memory.capacity)
    note = f"Aliased outputs reuse the memory of arguments. Capacity: {capacity}."
    return _by_slice(generation, "HBM of a chip", columns, note)


def collectives(generation: Generation) -> Table:
    """Number and size of the collectives, by kind and slice."""
    rows = [
        [e.slice_name, row.kind, str(row.count), megabytes(row.num_bytes)]
        for e in generation.estimates
        for row in e.collectives
    ]
    note = "Size of the results on one chip in one step." if rows else "None: a single chip has nothing to exchange."
    return Table(title="Collectives", header=["slice", "kind", "number", "size"], rows=rows, note=note)


def scaling_curve(generation: Generation) -> Table:
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
        for point in scaling(generation.estimates)
    ]
    header = ["slice", "chips", "images/s", "efficiency, no latency", "if collectives overlapped"]
    header += ["with latency at best", "at worst", f"at least {100 * WANTED_EFFICIENCY:.0f} %"]
    note = (
        f"Relative to {generation.estimates[0].slice_name}, with the same batch size per chip. {NO_OVERLAP} {LATENCY}"
    )
    return Table(title="Scaling", header=header, rows=rows, note=note)


def modules(best: Estimate) -> Table:
    """Cycles by module."""
    rows = [
        [
            row.module,
            f"{row.forward / 1e6:,.3f}",
            f"{row.backward / 1e6:,.3f}",
            milliseconds(row.total / best.cycles * best.compute_seconds),
            percent(row.total / best.cycles),
        ]
        for row in best.modules[:MAX_MODULES]
        if row.total / best.cycles * best.compute_seconds >= LEAST_SHOWN
    ]
    header = ["module", "M cycles forward", "M cycles backward", "time", "share"]
    slowest = best.modules[0]
    note = f"Slowest: {slowest.module}, {percent(slowest.total / best.cycles)} of the computation."
    num_hidden = len(best.modules) - len(rows)
    if num_hidden > 0:
        note += f" {num_hidden} faster modules are not shown."
    note += " A fusion is attributed to the module of its last operation. Names in parentheses are not modules."
    return Table(title=f"Modules on {_where(best)}", header=header, rows=rows, note=note)


def padding(best: Estimate) -> Table:
    """Modules with more than 10 % padding."""
    rows = [
        [row.module, percent(row.waste), megabytes(row.padded_bytes - row.num_bytes), row.worst]
        for row in best.padding[:MAX_MODULES]
    ]
    note = (
        f"Share of padding in the results of a module in HBM (of at least {SMALLEST_PADDED >> 10} KiB): layouts fill "
        "complete tiles, mostly of 8 sublanes x 128 lanes. Modules above 10 %, each with its worst array and layout."
    )
    if not rows:
        note = f"No module has more than 10 % padding. {note}"
    return Table(
        title=f"Padded widths on {_where(best)}", header=["module", "wasted", "bytes", "worst"], rows=rows, note=note
    )


def text(tables: Sequence[Table]) -> str:
    """The tables as text for the terminal."""
    return sheets.text(tables, NOTICE)


def _by_slice(
    generation: Generation, title: str, columns: Sequence[tuple[str, Callable[[Estimate], str]]], note: str
) -> Table:
    estimates = {e.slice_name: e for e in generation.estimates}
    rows = [_slice_row(compiled, estimates.get(compiled.target.name), columns) for compiled in generation.slices]
    return Table(title=title, header=["slice", *(name for name, _ in columns)], rows=rows, note=note)


def _slice_row(
    compiled: Compiled, estimate: Estimate | None, columns: Sequence[tuple[str, Callable[[Estimate], str]]]
) -> list[str]:
    return [compiled.target.name, *_cells(estimate, columns, compiled.record["status"])]


def _cells(
    estimate: Estimate | None, columns: Sequence[tuple[str, Callable[[Estimate], str]]], status: str
) -> list[str]:
    """A row without its name; dashes and the reason if the compilation failed."""
    if estimate is None:
        return [*[MISSING] * (len(columns) - 1), status]
    return [cell(estimate) for _, cell in columns]


def _where(best: Estimate) -> str:
    return f"{best.slice_name}, {best.images_per_chip} images per chip"
