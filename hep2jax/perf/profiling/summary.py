"""Figures of a profile: time by module and by operation, memory by category."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hep2jax.perf.aot import hlo
from hep2jax.perf.profiling import flops, places, trace
from hep2jax.perf.profiling.trace import Trace
from hep2jax.training.state import TrainState

NUM_OPERATIONS = 10
_CONTAINERS = ("while", "conditional", "call")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleTime:
    """Device time of a step that falls to one module."""

    module: str
    """Of the network; in parentheses what is none: a function, a part of the step, the time without operations."""
    forward_seconds: float
    backward_seconds: float
    flops: float
    """In a step on one device: of convolutions and matrix products; 0 where none are known."""

    @property
    def seconds(self) -> float:
        """Both directions."""
        return self.forward_seconds + self.backward_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperationTime:
    """Device time of a step that falls to one instruction of the compiled program."""

    name: str
    module: str
    backward: bool
    op_name: str
    """The traced operation that it comes from, such as `conv_general_dilated`; empty where the compiler tells none."""
    kind: str
    seconds: float
    flops: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of the traced steps went, slowest first."""

    step_seconds: float
    """Length of the traced window over its steps."""
    modules: list[ModuleTime]
    """Their seconds add up to `step_seconds`."""
    operations: list[OperationTime]


def summarise(found: Trace, text: str, num_steps: int) -> Profile:
    """Attribute a trace of `num_steps` steps to the operations of the compiled program `text`."""
    program = hlo.parse(text)
    known = program.instructions
    containers = {name for name, line in known.items() if line.opcode in _CONTAINERS}
    seconds = {name: time / 1e9 / num_steps for name, time in trace.divide(found, containers).items()}
    counts, work = trace.executions(found), flops.by_instruction(program)
    done = {name: work.get(name, 0) * counts.get(name, 0) / num_steps for name in seconds}
    where = places.by_instruction(program)
    operations = [
        _operation(line, where[name], seconds[name], done[name])
        for name in seconds
        if (line := known.get(name)) is not None
    ]
    return Profile(
        step_seconds=(found.end - found.start) / 1e9 / num_steps,
        modules=_modules(seconds, done, where),
        operations=sorted(operations, key=lambda row: -row.seconds),
    )


def _modules(seconds: Mapping[str, float], done: Mapping[str, float], where: Mapping) -> list[ModuleTime]:
    forward, backward, work = (collections.defaultdict(float) for _ in range(3))
    for name, time in seconds.items():
        place = where.get(name) or places.Place(module=_stranger(name), backward=False)
        (backward if place.backward else forward)[place.module] += time
        work[place.module] += done[name]
    rows = [
        ModuleTime(module=name, forward_seconds=forward[name], backward_seconds=backward[name], flops=work[name])
        for name in dict.fromkeys([*forward, *backward])
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def _stranger(name: str) -> str:
    """What a trace names, but not the program's text: copies, other programs, kernels that the runtime adds."""
    return name if name == trace.IDLE else trace.OTHER


def _operation(line: hlo.Instruction, place: places.Place, seconds: float, done: float) -> OperationTime:
    kind = re.search(r"\bkind=k(\w+)", line.rest)
    return OperationTime(
        name=line.name,
        module=place.module,
        backward=place.backward,
        op_name=line.op_name.rpartition("/")[2],
        kind=f"{line.opcode} ({kind[1].lower()})" if kind else line.opcode,
        seconds=seconds,
        flops=done,
    )


def memory(compiled: jax.stages.Compiled, state: TrainState, batch: Any) -> dict[str, int]:
    """Bytes on one device by category; empty where the platform does not say.

    The parts of `arguments` come first, then `arguments`, `outputs`, `aliased` (outputs in the place of arguments),
    `temporaries`, `generated_code` and `total`: all that is alive at once, an upper bound.
    """
    found = compiled.memory_analysis()
    if found is None:
        return {}
    parts = {
        "parameters": _bytes(state.params),
        "normalisation_statistics": _bytes(state.batch_stats),
        "optimizer_state": _bytes(state.opt_state),
        "averages": _bytes((state.ema_params, state.ema_batch_stats)),
        "batch": _bytes(batch),
    }
    arguments, outputs, aliased = (
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.alias_size_in_bytes,
    )
    temporaries, code = found.temp_size_in_bytes, found.generated_code_size_in_bytes
    return parts | {
        "other_arguments": arguments - sum(parts.values()),
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporaries": temporaries,
        "generated_code": code,
        "total": arguments + outputs - aliased + temporaries + code,
    }


def _bytes(tree: Any) -> int:
    """On one device."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves)
