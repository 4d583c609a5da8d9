"""Summarises a profile: time by module and by operation, and memory by category."""

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
    """Device time of a step that is attributed to one module."""

    module: str
    """Module of the network; names in parentheses are functions, parts of the step, or time without operations."""
    forward_seconds: float
    backward_seconds: float
    flops: float
    """FLOPs of convolutions and matrix products per step and device; 0 if none are known."""

    @property
    def seconds(self) -> float:
        """Time of the forward and the backward pass."""
        return self.forward_seconds + self.backward_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperationTime:
    """Device time of a step that is attributed to one instruction of the compiled program."""

    name: str
    module: str
    backward: bool
    op_name: str
    """The traced operation that it was compiled from, such as `conv_general_dilated`; empty if unknown."""
    kind: str
    seconds: float
    flops: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Time of the traced steps by module and by operation, slowest first."""

    step_seconds: float
    """Duration of the traced window divided by the number of steps."""
    modules: list[ModuleTime]
    """Their seconds add up to `step_seconds`."""
    operations: list[OperationTime]


def summarise(traced: Trace, text: str, num_steps: int) -> Profile:
    """Attribute a trace of `num_steps` steps to the operations of the compiled program `text`."""
    program = hlo.parse(text)
    instructions = program.instructions
    containers = {name for name, line in instructions.items() if line.opcode in _CONTAINERS}
    seconds = {name: time / 1e9 / num_steps for name, time in trace.divide(traced, containers).items()}
    counts, flops_per_run = trace.executions(traced), flops.by_instruction(program)
    flops_done = {name: flops_per_run.get(name, 0) * counts.get(name, 0) / num_steps for name in seconds}
    places_by_name = places.by_instruction(program)
    operations = [
        _operation(line, places_by_name[name], seconds[name], flops_done[name])
        for name in seconds
        if (line := instructions.get(name)) is not None
    ]
    return Profile(
        step_seconds=(traced.end - traced.start) / 1e9 / num_steps,
        modules=_modules(seconds, flops_done, places_by_name),
        operations=sorted(operations, key=lambda row: -row.seconds),
    )


def _modules(
    seconds: Mapping[str, float], flops_done: Mapping[str, float], places_by_name: Mapping
) -> list[ModuleTime]:
    forward, backward, module_flops = (collections.defaultdict(float) for _ in range(3))
    for name, time in seconds.items():
        place = places_by_name.get(name) or places.Place(module=_module_outside_program(name), backward=False)
        (backward if place.backward else forward)[place.module] += time
        module_flops[place.module] += flops_done[name]
    rows = [
        ModuleTime(
            module=name, forward_seconds=forward[name], backward_seconds=backward[name], flops=module_flops[name]
        )
        for name in dict.fromkeys([*forward, *backward])
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def _module_outside_program(name: str) -> str:
    """The label of a traced operation that is not in the program: a copy, another program, a kernel of the runtime."""
    return name if name == trace.IDLE else trace.OTHER


def _operation(line: hlo.Instruction, place: places.Place, seconds: float, flops_done: float) -> OperationTime:
    kind = re.search(r"\bkind=k(\w+)", line.rest)
    return OperationTime(
        name=line.name,
        module=place.module,
        backward=place.backward,
        op_name=line.op_name.rpartition("/")[2],
        kind=f"{line.opcode} ({kind[1].lower()})" if kind else line.opcode,
        seconds=seconds,
        flops=flops_done,
    )


def memory(compiled: jax.stages.Compiled, state: TrainState, batch: Any) -> dict[str, int]:
    """Bytes on one device by category; empty if the platform does not report them.

    The parts of `arguments` come first, then `arguments`, `outputs`, `aliased` (outputs that reuse the memory of
    arguments), `temporaries`, `generated_code` and `total`, an upper bound of the memory in use at any time.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    parts = {
        "parameters": _bytes(state.params),
        "normalisation_statistics": _bytes(state.batch_stats),
        "optimizer_state": _bytes(state.opt_state),
        "averages": _bytes((state.ema_params, state.ema_batch_stats)),
        "batch": _bytes(batch),
    }
    arguments, outputs, aliased = (
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.alias_size_in_bytes,
    )
    temporaries, code = analysis.temp_size_in_bytes, analysis.generated_code_size_in_bytes
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
    """Bytes of a tree of arrays on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves)
