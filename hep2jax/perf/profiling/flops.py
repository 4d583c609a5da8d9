"""Counts the FLOPs of convolutions and matrix products in the text of a compiled program. All functions are pure."""

import math
import re
from collections.abc import Mapping

from hep2jax.perf.aot.hlo import Array, Instruction, Program

# All cuDNN calls use the dimension labels of the forward convolution. For each call: which of (operand 0, operand 1,
# result) has the role of its input, kernel and output.
_CUDNN = {
    "__cudnn$convForward": (0, 1, 2),
    "__cudnn$convBiasActivationForward": (0, 1, 2),
    "__cudnn$convBackwardInput": (2, 1, 0),
    "__cudnn$convBackwardFilter": (0, 2, 1),
}


def by_instruction(program: Program) -> dict[str, int]:
    """FLOPs of one execution of each instruction, without zeros: 2 for each multiply-add that does not involve padding.

    Convolutions (including cuDNN calls) and matrix products are counted, also inside fusions. Other operations and
    calls of other libraries are not counted.
    """
    instructions = program.instructions
    direct = {name: _flops(line, instructions) for name, line in instructions.items()}
    total = {name: direct[name] + _inside(program, line, direct) for name, line in instructions.items()}
    return {name: flops for name, flops in total.items() if flops}


def _inside(program: Program, instruction: Instruction, direct: Mapping[str, int]) -> int:
    if instruction.opcode != "fusion":
        return 0
    lines = [line for name in instruction.callees for line in program.computations.get(name, ())]
    return sum(direct[line.name] + _inside(program, line, direct) for line in lines)


def _flops(instruction: Instruction, instructions: Mapping[str, Instruction]) -> int:
    roles = _roles(instruction)
    if not roles and instruction.opcode != "dot":
        return 0
    arrays = [instructions[name].arrays[0] for name in instruction.operands[:2]] + instruction.arrays[:1]
    if instruction.opcode == "dot":
        return _dot(instruction, arrays[0])
    source, kernel, result = (arrays[role] for role in roles)
    return _convolution(instruction, source, kernel, result)


def _roles(instruction: Instruction) -> tuple[int, ...]:
    if instruction.opcode == "convolution":
        return (0, 1, 2)
    target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    return _CUDNN.get(target[1], ()) if target else ()


def _dot(instruction: Instruction, left: Array) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    return 2 * math.prod(instruction.arrays[0].dimensions) * math.prod(left.dimensions[axis] for axis in axes)


def _convolution(instruction: Instruction, source: Array, kernel: Array, result: Array) -> int:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None, instruction.rest
    inputs, weights, outputs = (
        dict(zip(names, array.dimensions, strict=True))
        for names, array in zip(labels.groups(), (source, kernel, result), strict=True)
    )
    channels = 2 * outputs["b"] * outputs["f"] * weights["i"]
    spatial = sorted(name for name in weights if name.isdigit())
    return channels * math.prod(
        _positions(outputs[name], weights[name], inputs[name], _window(instruction, int(name))) for name in spatial
    )


def _window(instruction: Instruction, axis: int) -> dict[str, int]:
    """Stride, padding before the first position and dilations along one axis."""
    text = re.search(r"window=\{([^}]*)\}", instruction.rest)
    parts = dict(part.split("=") for part in text[1].split()) if text else {}
    values_of_axis = {name: values.split("x")[axis] for name, values in parts.items()}
    return {
        "stride": int(values_of_axis.get("stride", 1)),
        "low": int(values_of_axis.get("pad", "0_0").split("_")[0]),
        "lhs_dilate": int(values_of_axis.get("lhs_dilate", 1)),
        "rhs_dilate": int(values_of_axis.get("rhs_dilate", 1)),
    }


def _positions(outputs: int, size: int, inputs: int, window: dict[str, int]) -> int:
    """Number of pairs (output position, kernel tap) along one axis that read an input element, and not padding."""
    end = (inputs - 1) * window["lhs_dilate"] + 1
    positions = (
        output * window["stride"] + tap * window["rhs_dilate"] - window["low"]
        for output in range(outputs)
        for tap in range(size)
    )
    return sum(0 <= position < end and position % window["lhs_dilate"] == 0 for position in positions)
