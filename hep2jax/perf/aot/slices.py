"""TPU slices by name, with their topology and core clock."""

import dataclasses
import math

from hep2jax.errors import UsageError

_PLANE = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
_CUBE = {
    1: (1, 1, 1),
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (2, 2, 4),
    32: (2, 4, 4),
    64: (4, 4, 4),
    128: (4, 4, 8),
    256: (4, 8, 8),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """Properties that all slices of a TPU generation share.

    The clocks of v4 (1.05 GHz), v5e (1.5), v5p (1.75) and v6e (1.75) are derived: the published peak bf16 FLOP/s is
    divided by two and by the number of multiply-adds per cycle, which is that of 8, 4 and 8 arrays of 128 x 128 and 4
    arrays of 256 x 256. With these clocks, the compiler estimates the product of two 8192 x 8192 matrices at 93, 88, 90
    and 70 % of peak. (Google's pages give two arrays for v6e, but the compiler's cycles for this product are fewer than
    two arrays would need.)
    """

    topology: str
    """Prefix of libtpu's topology names."""
    chip_config: str
    """`megacore`: the two cores of a chip work as one device."""
    device_kind: str
    """Name of the device in JAX."""
    clock_hz: float
    shapes: dict[int, tuple[int, ...]]
    """Number of chips → chips along each axis of the interconnect."""

    @property
    def num_axes(self) -> int:
        """Number of axes of the interconnect; a chip has two links on each axis."""
        return len(self.shapes[1])


GENERATIONS = {
    "v4": Generation(
        topology="v4",
        chip_config="megacore",
        device_kind="TPU v4",
        clock_hz=1.05e9,
        shapes=_CUBE,
    ),
    "v5e": Generation(
        topology="v5e",
        chip_config="default",
        device_kind="TPU v5 lite",
        clock_hz=1.5e9,
        shapes=_PLANE,
    ),
    "v5p": Generation(
        topology="v5",
        chip_config="megacore",
        device_kind="TPU v5",
        clock_hz=1.75e9,
        shapes=_CUBE,
    ),
    "v6e": Generation(
        topology="v6e",
        chip_config="default",
        device_kind="TPU v6 lite",
        clock_hz=1.75e9,
        shapes=_PLANE,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A group of connected chips of one generation."""

    generation_name: str
    chips: int

    @property
    def name(self) -> str:
        """`v5e:16`: generation and number of chips."""
        return f"{self.generation_name}:{self.chips}"

    @property
    def generation(self) -> Generation:
        """Properties of the generation."""
        return GENERATIONS[self.generation_name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Chips along each axis of the interconnect."""
        return self.generation.shapes[self.chips]

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether each axis is a ring, closed by wrap-around links, as in real slices.

        v4 and v5p: all axes of slices of at least 4 x 4 x 4 chips (docs.cloud.google.com/tpu/docs/v5p). v5e and v6e:
        axes of 16 chips (Austin et al. 2025, "How to Scale Your Model", jax-ml.github.io/scaling-book/sharding).
        """
        return tuple(min(self.shape) >= 4 if len(self.shape) == 3 else side == 16 for side in self.shape)

    @property
    def torus_hops(self) -> int:
        """Largest distance between two chips along the axes of the interconnect, in links."""
        return sum(side // 2 if wraps else side - 1 for side, wraps in zip(self.shape, self.wraps, strict=True))

    @property
    def ring_hops(self) -> int:
        """Largest distance on one ring through all chips, which does not need wrap-around links."""
        return self.chips // 2

    @property
    def topology_name(self) -> str:
        """Name in the form that libtpu requires, such as `v5e:4x4`."""
        return f"{self.generation.topology}:{'x'.join(map(str, self.shape))}"

    @property
    def chips_per_host_bounds(self) -> tuple[int, int, int]:
        """Chips along each axis of a host; a host has four chips, except for a slice of one chip."""
        return (1, 1, 1) if self.chips == 1 else (2, 2, 1)


def parse(name: str) -> Slice:
    """Parse a name such as `v5e:16`; raises UsageError, with the valid values, for an unknown slice."""
    generation, _, number = name.strip().partition(":")
    if generation not in GENERATIONS:
        raise UsageError(f"slice '{name}': must be one of {', '.join(GENERATIONS)}, a colon, and the number of chips")
    chips = int(number) if number.isdigit() else 0
    shapes = GENERATIONS[generation].shapes
    if chips not in shapes:
        raise UsageError(f"slice '{name}': {generation} slices have {', '.join(map(str, shapes))} chips")
    assert math.prod(shapes[chips]) == chips
    return Slice(generation_name=generation, chips=chips)
