"""Consensus codes of staining patterns (ICAP, www.anapatterns.org), and the codes of the data sets' labels.

Codes and names: Damoiseaux et al., Annals of the Rheumatic Diseases 78 (2019), tables 1 and 2. Unless a label is itself
a code, its codes are our interpretation of the descriptions that the owners of the data set give.
"""

import dataclasses
from collections.abc import Iterator

GROUPS = ("negative", "nuclear", "cytoplasmic", "mitotic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pattern:
    """One consensus pattern."""

    number: int
    """0 to 29."""
    name: str
    group: str
    """One of `GROUPS`."""

    @property
    def code(self) -> str:
        """The code of the pattern, such as AC-4."""
        return f"AC-{self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """The meaning of a label of a data set."""

    codes: tuple[str, ...]
    note: str = ""
    """What the label leaves open; empty if nothing."""


_NAMES = {
    "negative": {0: "negative"},
    "nuclear": {
        1: "homogeneous",
        2: "dense fine speckled",
        3: "centromere",
        4: "fine speckled",
        5: "large/coarse speckled",
        6: "multiple nuclear dots",
        7: "few nuclear dots",
        8: "homogeneous nucleolar",
        9: "clumpy nucleolar",
        10: "punctate nucleolar",
        11: "smooth nuclear envelope",
        12: "punctate nuclear envelope",
        13: "PCNA-like",
        14: "CENP-F-like",
        29: "DNA topoisomerase I-like",
    },
    "cytoplasmic": {
        15: "fibrillar linear",
        16: "fibrillar filamentous",
        17: "fibrillar segmental",
        18: "discrete dots/GW body-like",
        19: "cytoplasmic dense fine speckled",
        20: "cytoplasmic fine speckled",
        21: "reticular/AMA",
        22: "polar/Golgi-like",
        23: "rods and rings",
    },
    "mitotic": {
        24: "centrosome",
        25: "spindle fibers",
        26: "NuMA-like",
        27: "intercellular bridge",
        28: "mitotic chromosomal envelope",
    },
}

PATTERNS = {
    f"AC-{number}": Pattern(number=number, name=name, group=group)
    for number, group, name in sorted((n, g, name) for g, names in _NAMES.items() for n, name in names.items())
}
"""The consensus patterns by code, in the order of their numbers."""


def _range(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"AC-{number}" for number in range(first, last + 1))


LABELS = {
    "negative": Meaning(codes=("AC-0",)),
    "homogeneous": Meaning(codes=("AC-1",), note="labelled before the consensus: may hold some AC-2 and AC-29"),
    "fine_speckled": Meaning(codes=("AC-4",), note="very dense ones count here, so AC-2 is not apart"),
    "coarse_speckled": Meaning(codes=("AC-5",)),
    "speckled": Meaning(codes=("AC-4", "AC-5"), note="fine and coarse together; may hold AC-2"),
    "centromere": Meaning(codes=("AC-3",)),
    "nucleolar": Meaning(codes=_range(8, 10), note="the contests' description is nearest to AC-9"),
    "nuclear_membrane": Meaning(codes=("AC-11", "AC-12"), note="the contests describe a smooth ring, AC-11"),
    "golgi": Meaning(codes=("AC-22",)),
    "mitotic_spindle": Meaning(
        codes=("AC-25", "AC-26"), note="the contest describes the spindle's poles, rather AC-26"
    ),
    "cytoplasmatic": Meaning(codes=_range(15, 21), note="mostly AC-19 to AC-21, not apart"),
    "cytoplasmic": Meaning(codes=_range(19, 21)),
} | {code: Meaning(codes=(code,), note=pattern.name) for code, pattern in PATTERNS.items()}
"""The meaning of each label; a code as label means itself."""


def codes(label: str) -> tuple[str, ...]:
    """The codes of a label, in order; empty for an unknown or empty label."""
    return LABELS[label].codes if label in LABELS else ()


def describe(label: str) -> str:
    """The codes of a label as text, such as `AC-4, AC-5` or, from three on, `AC-8 to AC-10`; empty without any."""
    return ", ".join(_runs([PATTERNS[code].number for code in codes(label)]))


def note(label: str) -> str:
    """What the label leaves open; empty if nothing."""
    return LABELS[label].note if label in LABELS else ""


def _runs(numbers: list[int]) -> Iterator[str]:
    while numbers:
        length = next((n for n in range(1, len(numbers)) if numbers[n] != numbers[0] + n), len(numbers))
        run, numbers = numbers[:length], numbers[length:]
        yield f"AC-{run[0]} to AC-{run[-1]}" if length > 2 else ", ".join(f"AC-{number}" for number in run)
