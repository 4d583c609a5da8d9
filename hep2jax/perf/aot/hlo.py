"""Extracts cycles, collectives and memory layouts from the text of a compiled program. All functions are pure."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SCOPE = "module."
"""Prefix of the scope of a module (see hep2jax.perf.aot.scopes). It must not contain `@`, where XLA truncates names."""
FORWARD, OPTIMIZER, COMPILER = "(network, loss)", "(optimizer, averages)", "(made by the compiler)"
SMALLEST_PADDED = 1 << 16
"""Smallest padded size in bytes of the arrays that are analysed: padding of smaller arrays does not matter."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z\d\-]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_CALLEES = re.compile(r"\b(?:body|condition|calls|to_apply)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_LAYER_PARTS = ("conv", "norm", "linear")
_NO_BUFFER = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional", "call"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """A shape with its layout, such as `bf16[8,64,64,32]{0,3,2,1:T(8,128)(2,1)}`."""

    text: str
    dtype: str
    dimensions: tuple[int, ...]
    minor_to_major: tuple[int, ...]
    tile: tuple[int, ...]
    in_hbm: bool
    """Whether it is in the HBM of the chip, and not in a small memory such as the vector memory, `S(1)`."""

    @property
    def num_bytes(self) -> int:
        """Size of the data in bytes, without padding."""
        return math.prod(self.dimensions) * _bits(self.dtype) // 8

    @property
    def padded_bytes(self) -> int:
        """Size in memory in bytes: the minor dimensions are rounded up to multiples of the tile dimensions."""
        dimensions = [self.dimensions[axis] for axis in self.minor_to_major]
        for index, tile_dimension in enumerate(self.tile[::-1][: len(dimensions)]):
            dimensions[index] = -(-dimensions[index] // tile_dimension) * tile_dimension
        return math.prod(dimensions) * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation."""

    name: str
    """Unique in the program."""
    opcode: str
    shape: str
    rest: str
    """Operands, attributes, metadata and the compiler's own configuration, as text."""
    function: str = ""
    """The function of this package that traced it, such as `pooling.max_pool`; empty if there is none."""

    @property
    def cycles(self) -> int:
        """The compiler's estimate of cycles; 0 if there is none (collectives, asynchronous copies, scalars)."""
        return _number(r'"estimated_cycles":"(\d+)"', self.rest, 0)

    @property
    def op_name(self) -> str:
        """The traced operation that it was compiled from; for a fusion, that of its root."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""

    @property
    def module(self) -> str:
        """The module of the network that it is attributed to, or, in parentheses, a function or a part of the step."""
        return module_of(self.op_name, self.function)

    @property
    def operands(self) -> list[str]:
        """Names of the instructions that produce its operands."""
        depth, end = 1, 0
        while depth and end < len(self.rest):
            depth += {"(": 1, ")": -1}.get(self.rest[end], 0)
            end += 1
        return re.findall(r"%([\w.\-]+)", self.rest[:end])

    @property
    def arrays(self) -> list[Array]:
        """The result arrays."""
        return [_array(match) for match in _ARRAY.finditer(self.shape)]

    @property
    def callees(self) -> list[str]:
        """Names of the computations that it calls.

        `to_apply` is used for `call` only: in other instructions it is a combiner of scalars.
        """
        names = []
        for match in _CALLEES.finditer(self.rest):
            if match[0].startswith("to_apply") and self.opcode != "call":
                continue
            names += [match[1]] if match[1] else [name.strip().lstrip("%") for name in match[2].split(",")]
        return names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """Computations by name."""

    entry: str
    computations: dict[str, list[Instruction]]

    @property
    def instructions(self) -> dict[str, Instruction]:
        """All instructions by name."""
        return {line.name: line for lines in self.computations.values() for line in lines}


def parse(text: str) -> Program:
    """Parse the output of `compiled.as_text()`."""
    entry, lines, computations, functions = "", [], {}, _functions(text)
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            frame = _number(r"stack_frame_id=(\d+)", match[4], 0)
            name, shape, opcode, rest = match.groups()
            function = functions.get(frame, "")
            lines.append(Instruction(name=name, opcode=opcode, shape=shape, rest=rest, function=function))
    return Program(entry=entry, computations=computations)


def _functions(text: str) -> dict[int, str]:
    """The function of each stack frame in a file of this package; nested functions count as the outer function."""
    names = [
        {int(number): name for number, name in re.findall(r'(\d+) "([^"]*)"', _section(text, table))}
        for table in ("FileNames", "FunctionNames")
    ]
    pattern = r"(\d+) \{file_name_id=(\d+) function_name_id=(\d+)"
    located = re.findall(pattern, _section(text, "FileLocations"))
    locations = {int(row): (names[0][int(file)], names[1][int(function)]) for row, file, function in located}
    frames = re.findall(r"(\d+) \{file_location_id=(\d+)", _section(text, "StackFrames"))
    functions = {int(frame): locations[int(location)] for frame, location in frames}
    return {
        frame: f"{file.rpartition('/')[2].removesuffix('.py')}.{function.partition('.<locals>')[0]}"
        for frame, (file, function) in functions.items()
        if "/hep2jax/" in file
    }


def _section(text: str, name: str) -> str:
    match = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    return match[1] if match else ""


def executions(program: Program) -> Iterator[tuple[Instruction, int, bool]]:
    """Yield (instruction, number of executions in a step, whether it is part of a fusion), following calls and loops.

    Loops are assumed to be those of `lax.scan`, which end when a counter that starts at 0 reaches a constant. A loop
    with no constant or several constants in its condition counts as one iteration. All branches of a conditional count.
    """
    yield from _executions(program, program.entry, 1, False)


def _executions(program: Program, name: str, times: int, fused: bool) -> Iterator[tuple[Instruction, int, bool]]:
    for instruction in program.computations.get(name, ()):
        yield instruction, times, fused
        iterations = _iterations(program, instruction) if instruction.opcode == "while" else 1
        inside = fused or instruction.opcode == "fusion"
        for callee in instruction.callees:
            yield from _executions(program, callee, times * iterations, inside)


def _iterations(program: Program, loop: Instruction) -> int:
    condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.rest)
    lines = program.computations.get(condition[1], []) if condition else []
    ends = [_number(r"^(\d+)\)", line.rest, 1) for line in lines if line.opcode == "constant"]
    counts_up = any(line.opcode == "compare" and "direction=LT" in line.rest for line in lines)
    return ends[0] if len(ends) == 1 and counts_up else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind in a step."""

    kind: str
    count: int
    num_bytes: int
    """Size of their results on one chip."""


def collectives(program: Program) -> list[Collective]:
    """The collectives of a step by kind, in descending order of bytes."""
    counts, sizes = collections.Counter(), collections.Counter()
    for instruction, times, _ in executions(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            counts[kind] += times
            sizes[kind] += times * sum(array.num_bytes for array in _results(instruction))
    return [Collective(kind=kind, count=counts[kind], num_bytes=size) for kind, size in sizes.most_common()]


def _results(instruction: Instruction) -> list[Array]:
    """The arrays that a collective produces.

    The result of an asynchronous gather or permutation starts with its operands and has u32 scalars as semaphores.
    """
    arrays = instruction.arrays
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        arrays = [array for array in arrays if array.dtype != "u32" or array.dimensions]
        return arrays[len(arrays) // 2 :]
    return arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleCycles:
    """Estimated cycles of a step that are attributed to one module of the network."""

    module: str
    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Cycles of the forward and the backward pass."""
        return self.forward + self.backward


def cycles_by_module(program: Program) -> list[ModuleCycles]:
    """Estimated cycles of a step by module, slowest first; a fusion belongs to the module of its last operation."""
    forward, backward = collections.Counter(), collections.Counter()
    for instruction, times, fused in executions(program):
        if not fused and instruction.cycles:
            direction = backward if "transpose(" in instruction.op_name else forward
            direction[instruction.module] += times * instruction.cycles
    names = dict.fromkeys([*forward, *backward])
    rows = [ModuleCycles(module=name, forward=forward[name], backward=backward[name]) for name in names]
    return sorted(rows, key=lambda row: -row.total)


def module_of(op_name: str, function: str = "") -> str:
    """`jit(step)/transpose(jvp(module.stages.0.1))/module.stages.0.1.conv/mul` → `stages.0.1`.

    Convolution, normalisation and linear map of a layer count as one module, because the compiler fuses them. An
    operation outside all modules is named by the function of this package that traced it, such as
    `(upsampling.upsample)`, or else by its part of the step.
    """
    names = re.findall(re.escape(SCOPE) + r"([\w.]+)", op_name)
    if names:
        head, _, part = names[-1].rpartition(".")
        return head if head and part in _LAYER_PARTS else names[-1]
    if function:
        return f"({function})"
    if "jvp(" in op_name:
        return FORWARD
    return OPTIMIZER if op_name.startswith("jit(") else COMPILER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Padding:
    """Memory that the tiled layouts of a module's results use for padding."""

    module: str
    num_bytes: int
    padded_bytes: int
    worst: str
    """The result with the most padding, with its layout."""

    @property
    def waste(self) -> float:
        """Fraction of the bytes in memory that is padding."""
        return 1 - self.num_bytes / self.padded_bytes


def padding_by_module(program: Program, threshold: float = 0.1) -> list[Padding]:
    """Modules with a fraction of padding above `threshold`, in descending order of padding bytes.

    Each result of at least `SMALLEST_PADDED` bytes that is written to HBM is counted once.
    """
    arrays = collections.defaultdict(list)
    for instruction, _, fused in executions(program):
        moved = instruction.opcode.endswith(("-start", "-done"))  # their data was counted where it was produced
        if not (fused or moved or instruction.opcode in _NO_BUFFER):
            in_hbm = (array for array in instruction.arrays if array.in_hbm)
            arrays[instruction.module] += [array for array in in_hbm if array.padded_bytes >= SMALLEST_PADDED]
    rows = [_padding(module, results) for module, results in arrays.items() if results]
    return sorted((row for row in rows if row.waste > threshold), key=lambda row: row.num_bytes - row.padded_bytes)


def _padding(module: str, arrays: list[Array]) -> Padding:
    return Padding(
        module=module,
        num_bytes=sum(array.num_bytes for array in arrays),
        padded_bytes=sum(array.padded_bytes for array in arrays),
        worst=max(arrays, key=lambda array: array.padded_bytes - array.num_bytes).text,
    )


def _array(match: re.Match[str]) -> Array:
    tile = re.search(r"T\(([\d,]+)\)", match[4] or "")
    dimensions = _integers(match[2])
    order = _integers(match[3] or "") or tuple(reversed(range(len(dimensions))))
    return Array(
        text=match[0],
        dtype=match[1],
        dimensions=dimensions,
        minor_to_major=order,
        tile=_integers(tile[1]) if tile else (),
        in_hbm=re.search(r"S\([1-9]\d*\)", match[4] or "") is None,
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _bits(dtype: str) -> int:
    """`bf16` → 16; predicates take one byte, tokens take no memory."""
    return 8 if dtype == "pred" else _number(r"^[a-z]+(\d+)", dtype, 0)


def _number(pattern: str, text: str, default: int) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else default
