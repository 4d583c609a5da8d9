"""Estimates speed, memory and scaling from the records and texts of compiled programs. All functions are pure."""

import dataclasses
from collections.abc import Sequence

from hep2jax.perf.advice import Evidence, Padding
from hep2jax.perf.aot import hlo, slices
from hep2jax.perf.aot.compiler import Compiled
from hep2jax.perf.chips import Chip

NO_OVERLAP = (
    "Assumed: collectives and computation do not overlap; a collective takes the time of its bytes on one ring along "
    "one axis of the interconnect, both directions used at the published bandwidth (an all-reduce sends 2 (n-1)/n of "
    "its bytes)."
)
HOP_SECONDS = (1e-6, 8e-6 / 3)
"""Low and high latency of a link between TPUs. Both are from Austin et al. 2025 ("How to Scale Your Model",
jax-ml.github.io/scaling-book/sharding): the value that they assume, and a measurement of a small all-gather on a v5e,
in which three hops took 8 µs."""
LATENCY = (
    "Latency is added to that: each collective crosses the slice once along the longest path, an all-reduce twice; at "
    f"best along the axes of the interconnect, {1e6 * HOP_SECONDS[0]:.1f} µs per hop, as in the programs that the "
    f"compiler generates; at worst on one ring through all chips, {1e6 * HOP_SECONDS[1]:.1f} µs per hop (both values "
    "from Austin et al. 2025, How to Scale Your Model). A slice scales if the worst case is good enough."
)
WANTED_EFFICIENCY = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """HBM usage of one chip, in bytes."""

    arguments: int
    outputs: int
    aliased: int
    """Outputs that reuse the memory of arguments."""
    temporaries: int
    generated_code: int
    capacity: int

    @property
    def total(self) -> int:
        """Upper bound of the memory in use at any time."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.generated_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimates for one compiled program."""

    slice_name: str
    chips: int
    images_per_chip: int
    compile_seconds: float
    memory: Memory
    collectives: list[hlo.Collective]
    modules: list[hlo.ModuleCycles]
    padding: list[hlo.Padding]
    cycles: int
    compute_seconds: float
    collective_seconds: float
    """Transfer time of the collectives under the assumption `NO_OVERLAP`."""
    latency_seconds: tuple[float, float]
    """Latency of the collectives at best and at worst, see `LATENCY`."""
    model_flops: float
    """FLOPs of the published network, for one step on one chip."""
    program_flops: float
    bytes_accessed: float
    peak_flops: float
    """Published bfloat16 FLOP/s of a chip."""

    @property
    def step_seconds(self) -> float:
        """Time of the computation followed by the collectives, without their latency."""
        return self.compute_seconds + self.collective_seconds

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: model FLOP/s as a fraction of the published peak."""
        return self.model_flops / self.step_seconds / self.peak_flops

    @property
    def images_per_second_per_chip(self) -> float:
        """Throughput of one chip of the slice, without latency."""
        return self.images_per_chip / self.step_seconds

    @property
    def fits(self) -> bool:
        """Whether the program fits in HBM."""
        return self.memory.total <= self.memory.capacity


def estimate(compiled: Compiled, chip: Chip) -> Estimate:
    """Estimates for a program that was compiled successfully."""
    program, record, peak = hlo.parse(compiled.text), compiled.record, chip.bf16_flops
    assert peak is not None, chip.name
    modules, collectives = hlo.cycles_by_module(program), hlo.collectives(program)
    cycles = sum(row.total for row in modules)
    generation = compiled.target.generation
    return Estimate(
        slice_name=compiled.target.name,
        chips=compiled.target.chips,
        images_per_chip=compiled.images_per_chip,
        compile_seconds=record["seconds"],
        memory=Memory(**record["memory"], capacity=chip.hbm_bytes),
        collectives=collectives,
        modules=modules,
        padding=hlo.padding_by_module(program),
        cycles=cycles,
        compute_seconds=cycles / generation.clock_hz,
        collective_seconds=collective_seconds(collectives, compiled.target, chip),
        latency_seconds=latency_seconds(collectives, compiled.target),
        model_flops=record["model_flops"],
        program_flops=record["program_flops"],
        bytes_accessed=record["bytes_accessed"],
        peak_flops=peak,
    )


def evidence(best: Estimate, chip: Chip, *, larger_batches_tried: bool) -> Evidence:
    """What an estimate says of a step, for `perf.advice`."""
    seconds = {row.module: row.total / best.cycles * best.compute_seconds for row in best.modules}
    slowest = next((row.module for row in best.modules if not row.module.startswith("(")), "")
    return Evidence(
        platform="tpu",
        step=best.step_seconds + best.latency_seconds[0],
        optimizer=seconds.get(hlo.OPTIMIZER, 0.0),
        arithmetic=best.model_flops / best.peak_flops,
        traffic=best.bytes_accessed / chip.hbm_bandwidth,
        memory_share=best.memory.total / best.memory.capacity,
        larger_batches_tried=larger_batches_tried,
        collectives=best.collective_seconds + best.latency_seconds[0],
        slowest_module=slowest,
        slowest_seconds=seconds.get(slowest, 0.0),
        padding=[Padding(module=p.module, waste=p.waste, seconds=seconds.get(p.module, 0.0)) for p in best.padding],
    )


def collective_seconds(collectives: Sequence[hlo.Collective], target: slices.Slice, chip: Chip) -> float:
    """Time of all collectives of a step in seconds, under the assumption `NO_OVERLAP`."""
    one_direction = chip.interconnect_bandwidth / 2
    share = (target.chips - 1) / target.chips
    rounds = {"all-reduce": 2 * share, "reduce-scatter": target.chips - 1, "collective-permute": 1.0}
    bytes_sent = sum(rounds.get(row.kind, share) * row.num_bytes for row in collectives)
    return bytes_sent / (one_direction / target.generation.num_axes)


def latency_seconds(collectives: Sequence[hlo.Collective], target: slices.Slice) -> tuple[float, float]:
    """Total latency of the collectives of a step in seconds, at best and at worst, see `LATENCY`."""
    traversals = {"all-reduce": 2}
    passes = sum(traversals.get(row.kind, 1) * row.count for row in collectives)
    low, high = HOP_SECONDS
    return passes * target.torus_hops * low, passes * target.ring_hops * high


def recommended(estimates: Sequence[Estimate]) -> Estimate | None:
    """The estimate with the highest throughput per chip among those that fit in memory; None if none fits."""
    return max((e for e in estimates if e.fits), key=lambda e: e.images_per_second_per_chip, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """A slice compared with the smallest slice of its generation, at the same batch size per chip."""

    slice_name: str
    chips: int
    images_per_second: float
    efficiency: float
    """Throughput per chip relative to the smallest slice, without overlap of collectives and without latency."""
    efficiency_overlapped: float
    """The same if collectives overlap with the computation as far as possible."""
    efficiency_best: float
    """`efficiency` with the lowest latency."""
    efficiency_worst: float
    """`efficiency` with the highest latency."""

    @property
    def scales(self) -> bool:
        """Whether the slice reaches `WANTED_EFFICIENCY` even with the highest latency."""
        return self.efficiency_worst >= WANTED_EFFICIENCY


def scaling(estimates: Sequence[Estimate]) -> list[ScalingPoint]:
    """Weak scaling over the slices of one generation, in order of size."""
    ordered = sorted(estimates, key=lambda e: e.chips)
    return [
        ScalingPoint(
            slice_name=e.slice_name,
            chips=e.chips,
            images_per_second=e.images_per_second_per_chip * e.chips,
            efficiency=ordered[0].step_seconds / e.step_seconds,
            efficiency_overlapped=_overlapped(ordered[0]) / _overlapped(e),
            efficiency_best=_with_latency(ordered[0], 0) / _with_latency(e, 0),
            efficiency_worst=_with_latency(ordered[0], 1) / _with_latency(e, 1),
        )
        for e in ordered
    ]


def _with_latency(estimate: Estimate, bound: int) -> float:
    return estimate.step_seconds + estimate.latency_seconds[bound]


def _overlapped(estimate: Estimate) -> float:
    return max(estimate.compute_seconds, estimate.collective_seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """The programs of one TPU generation."""

    name: str
    chip: Chip
    sweep: list[Compiled]
    """Results for the smallest slice, by images per chip."""
    sweep_estimates: list[Estimate]
    """Estimates for the programs in `sweep` that were compiled successfully."""
    slices: list[Compiled]
    """Results with the recommended batch size, by number of chips; empty if no batch size fits."""
    estimates: list[Estimate]
    """Estimates for the programs in `slices` that were compiled successfully."""

    @property
    def recommended(self) -> Estimate | None:
        """The batch size with the highest throughput per chip among those that fit in memory."""
        return recommended(self.sweep_estimates)
