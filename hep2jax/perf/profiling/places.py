"""Attributes each operation of a compiled training step to a module, including operations without a name."""

import collections
import dataclasses
import re

from hep2jax.perf.aot.hlo import COMPILER, SCOPE, Instruction, Program, module_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The module and the direction that an operation is attributed to."""

    module: str
    """As returned by `hlo.module_of`."""
    backward: bool
    """Whether it is part of the backward pass."""


def by_instruction(program: Program) -> dict[str, Place]:
    """The place of every instruction, by name.

    XLA's CPU compiler does not name some operations, among them gradients of kernels. Such an operation is attributed
    to the module of the first operation that uses its result, or to the module whose parameter it updates; otherwise to
    the module of the first operation that produces its operands. The search passes through other operations without a
    name. If no module is found, the operation is attributed to `hlo.COMPILER`.
    """
    return _Finder(program).all()


class _Finder:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._instructions = program.instructions
        self._users = collections.defaultdict(list)
        for line in self._instructions.values():
            for name in line.operands:
                self._users[name].append(line)
        self._from_users: dict[str, Place | None] = {}
        self._from_operands: dict[str, Place | None] = {}

    def all(self) -> dict[str, Place]:
        return {name: self._place(line) for name, line in self._instructions.items()}

    def _place(self, line: Instruction) -> Place:
        op_name = self._op_name(line)
        if op_name:
            return Place(module=module_of(op_name, line.function), backward="transpose(" in op_name)
        place = self._place_of_users(line) or self._place_of_operands(line)
        return place or Place(module=module_of("", line.function), backward=False)

    def _op_name(self, line: Instruction) -> str:
        """The name of the traced operation; for an unnamed fusion, that of the last operation inside it in a module."""
        if line.op_name or line.opcode != "fusion":
            return line.op_name
        inside = [inner.op_name for name in line.callees for inner in self._program.computations.get(name, ())]
        return next((name for name in reversed(inside) if SCOPE in name), "")

    def _place_of_users(self, line: Instruction) -> Place | None:
        """The place of the first user of its result that has one."""
        if line.name not in self._from_users:
            self._from_users[line.name] = None  # ends the recursion if there were a cycle of users
            places = (self._of_user(user, line) for user in self._users[line.name])
            self._from_users[line.name] = next((place for place in places if place), None)
        return self._from_users[line.name]

    def _of_user(self, user: Instruction, line: Instruction) -> Place | None:
        op_name = self._op_name(user)
        if SCOPE in op_name:
            return self._place(user)
        if op_name:
            return self._of_update(user, line)
        return self._place_of_users(user)

    def _of_update(self, user: Instruction, gradient: Instruction) -> Place | None:
        """The module whose parameter, or its moments, `user` updates from a gradient with the same dimensions."""
        operands = (self._instructions[name] for name in user.operands if name in self._instructions)
        alike = (line for line in operands if _sorted_dimensions(line) == _sorted_dimensions(gradient))
        modules = {module for line in alike if (module := _module_of_parameter(line))}
        return Place(module=modules.pop(), backward=True) if len(modules) == 1 else None

    def _place_of_operands(self, line: Instruction) -> Place | None:
        """The place of the first operation that produces one of its operands and has one."""
        if line.name not in self._from_operands:
            self._from_operands[line.name] = None
            producers = (self._instructions[name] for name in line.operands if name in self._instructions)
            places = (self._of_producer(producer) for producer in producers)
            self._from_operands[line.name] = next((place for place in places if place), None)
        return self._from_operands[line.name]

    def _of_producer(self, producer: Instruction) -> Place | None:
        op_name = self._op_name(producer)
        if SCOPE in op_name:
            return self._place(producer)
        if module := _module_of_parameter(producer):
            return Place(module=module, backward=False)
        return None if op_name else self._place_of_operands(producer)


def _sorted_dimensions(line: Instruction) -> list[list[int]]:
    """Dimensions of its results, sorted: the gradient of a kernel may have its axes in another order."""
    return [sorted(array.dimensions) for array in line.arrays]


def _module_of_parameter(line: Instruction) -> str:
    r"""`state.params[\'up\'][0][\'conv\'][\'kernel\']` → `up.0`; empty if it is not a parameter of a module."""
    keys = re.search(r"^state\..*?(\[\\?'.*)", line.op_name) if line.opcode == "parameter" else None
    path = re.findall(r"\[\\?'?(\w+)", keys[1]) if keys else []
    name = module_of(SCOPE + ".".join(path[:-1])) if path[1:] else ""
    return "" if name == COMPILER else name
