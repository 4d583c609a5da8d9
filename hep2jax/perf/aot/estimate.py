"""What the compiled programs say about speed, memory and scaling. Pure: records and program texts in, figures out."""

import dataclasses
from collections.abc import Sequence

from hep2jax.perf.aot import hlo, slices
from hep2jax.perf.aot.compiler import Compiled
from hep2jax.perf.chips import Chip

NO_OVERLAP = (
    "Assumed: collectives and computation do not overlap; a collective takes the time of its bytes on one ring along "
    "one axis of the interconnect, both directions used at the published bandwidth (an all-reduce sends 2 (n-1)/n of "
    "its bytes)."
)
HOP_SECONDS = (1e-6, 8e-6 / 3)
"""Low and high latency of a link between TPUs: what Austin et al. 2025 ("How to Scale Your Model",
jax-ml.github.io/scaling-book/sharding) reckon with; and what they measured of a small all-gather on a v5e, whose three
hops took 8 µs."""
LATENCY = (
    "Latency is added to that: each collective passes the longest way through the slice once, an all-reduce twice; at "
    f"best along the axes of the interconnect, {1e6 * HOP_SECONDS[0]:.1f} µs a hop, as in the programs that the "
    f"compiler writes; at worst on one ring through all chips, {1e6 * HOP_SECONDS[1]:.1f} µs a hop (both figures from "
    "Austin et al. 2025, How to Scale Your Model). The worst decides."
)
WANTED_EFFICIENCY = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of HBM on one chip."""

    arguments: int
    outputs: int
    aliased: int
    """Outputs that take the place of arguments."""
    temporaries: int
    generated_code: int
    capacity: int

    @property
    def total(self) -> int:
        """All that is alive at once, an upper bound."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.generated_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """One program, as the TPU compiler sees it."""

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
    """Time of the bytes (`NO_OVERLAP`)."""
    latency_seconds: tuple[float, float]
    """Of the collectives, at best and at worst (`LATENCY`)."""
    model_flops: float
    """Of a step on one chip."""
    program_flops: float
    bytes_accessed: float
    peak_flops: float
    """Published bf16 FLOP/s of a chip."""

    @property
    def step_seconds(self) -> float:
        """Computation, then collectives, their latency not counted."""
        return self.compute_seconds + self.collective_seconds

    @property
    def mfu(self) -> float:
        """Model FLOP/s as a share of the published peak."""
        return self.model_flops / self.step_seconds / self.peak_flops

    @property
    def images_per_second_per_chip(self) -> float:
        """Throughput of one chip of the slice."""
        return self.images_per_chip / self.step_seconds

    @property
    def fits(self) -> bool:
        """Whether the program fits in HBM."""
        return self.memory.total <= self.memory.capacity


def estimate(compiled: Compiled, chip: Chip) -> Estimate:
    """Figures of a program that compiled."""
    program, record, peak = hlo.parse(compiled.text), compiled.record, chip.bf16_flops
    assert peak is not None, chip.name
    modules, found = hlo.cycles_by_module(program), hlo.collectives(program)
    cycles = sum(row.total for row in modules)
    generation = compiled.target.generation
    return Estimate(
        slice_name=compiled.target.name,
        chips=compiled.target.chips,
        images_per_chip=compiled.images_per_chip,
        compile_seconds=record["seconds"],
        memory=Memory(**record["memory"], capacity=chip.hbm_bytes),
        collectives=found,
        modules=modules,
        padding=hlo.padding_by_module(program),
        cycles=cycles,
        compute_seconds=cycles / generation.clock_hz,
        collective_seconds=collective_seconds(found, compiled.target, chip),
        latency_seconds=latency_seconds(found, compiled.target),
        model_flops=record["model_flops"],
        program_flops=record["program_flops"],
        bytes_accessed=record["bytes_accessed"],
        peak_flops=peak,
    )


def collective_seconds(found: Sequence[hlo.Collective], target: slices.Slice, chip: Chip) -> float:
    """Seconds of all collectives of a step, under `NO_OVERLAP`."""
    one_direction = chip.interconnect_bandwidth / 2
    others = (target.chips - 1) / target.chips
    rounds = {"all-reduce": 2 * others, "reduce-scatter": target.chips - 1, "collective-permute": 1.0}
    sent = sum(rounds.get(row.kind, others) * row.num_bytes for row in found)
    return sent / (one_direction / target.generation.num_axes)


def latency_seconds(found: Sequence[hlo.Collective], target: slices.Slice) -> tuple[float, float]:
    """Seconds of latency of all collectives of a step at best and at worst, under `LATENCY`."""
    ways = {"all-reduce": 2}
    passes = sum(ways.get(row.kind, 1) * row.count for row in found)
    low, high = HOP_SECONDS
    return passes * target.torus_hops * low, passes * target.ring_hops * high


def recommended(estimates: Sequence[Estimate]) -> Estimate | None:
    """Of those that fit, the one with most images per second and chip; None if none fits."""
    return max((e for e in estimates if e.fits), key=lambda e: e.images_per_second_per_chip, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """A slice beside the smallest of its generation, at the same batch per chip."""

    slice_name: str
    chips: int
    images_per_second: float
    efficiency: float
    """Images per second and chip over those of the smallest slice, collectives not hidden, latency not counted."""
    efficiency_overlapped: float
    """The same if collectives run beside the computation, as far as there is room."""
    efficiency_best: float
    """As `efficiency`, with the latency at best."""
    efficiency_worst: float
    """With the latency at worst."""

    @property
    def scales(self) -> bool:
        """Whether the slice keeps `WANTED_EFFICIENCY`, whatever the latency is within its range."""
        return self.efficiency_worst >= WANTED_EFFICIENCY


def scaling(estimates: Sequence[Estimate]) -> list[ScalingPoint]:
    """Weak scaling over slices of one generation, smallest first."""
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


def _with_latency(one: Estimate, end: int) -> float:
    return one.step_seconds + one.latency_seconds[end]


def _overlapped(one: Estimate) -> float:
    return max(one.compute_seconds, one.collective_seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """The programs of one TPU generation."""

    name: str
    chip: Chip
    sweep: list[Compiled]
    """The smallest slice, by images per chip."""
    sweep_estimates: list[Estimate]
    """Of those that compiled."""
    slices: list[Compiled]
    """The recommended batch per chip, by number of chips; empty if no batch fits."""
    estimates: list[Estimate]

    @property
    def recommended(self) -> Estimate | None:
        """The batch with most images per second and chip among those that fit."""
        return recommended(self.sweep_estimates)
