"""Which module every operation of a compiled training step counts for, those without a name among them."""

import collections
import dataclasses
import re

from hep2jax.perf.aot.hlo import COMPILER, SCOPE, Instruction, Program, module_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a step an operation belongs."""

    module: str
    """As `hlo.module_of` says."""
    backward: bool


def by_instruction(program: Program) -> dict[str, Place]:
    """The place of every instruction, by name.

    XLA's CPU compiler leaves operations without a name, kernels' gradients among them. Such a one counts for the first
    operation in a module that uses its result, or for the module whose parameter it updates; else for the first whose
    result it takes. Between them may lie others without a name. What finds no module so is `hlo.COMPILER`'s.
    """
    return _Finder(program).all()


class _Finder:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._known = program.instructions
        self._users = collections.defaultdict(list)
        for line in self._known.values():
            for name in line.operands:
                self._users[name].append(line)
        self._from_users: dict[str, Place | None] = {}
        self._from_operands: dict[str, Place | None] = {}

    def all(self) -> dict[str, Place]:
        return {name: self._place(line) for name, line in self._known.items()}

    def _place(self, line: Instruction) -> Place:
        op_name = self._op_name(line)
        if op_name:
            return Place(module=module_of(op_name, line.function), backward="transpose(" in op_name)
        found = self._down(line) or self._up(line)
        return found or Place(module=module_of("", line.function), backward=False)

    def _op_name(self, line: Instruction) -> str:
        """Its own; of a fusion without one, that of the last operation inside it that has one."""
        if line.op_name or line.opcode != "fusion":
            return line.op_name
        inside = [inner.op_name for name in line.callees for inner in self._program.computations.get(name, ())]
        return next((name for name in reversed(inside) if SCOPE in name), "")

    def _down(self, line: Instruction) -> Place | None:
        """From what uses its result."""
        if line.name not in self._from_users:
            self._from_users[line.name] = None  # no result is its own user; this ends a loop if there were one
            places = (self._of_user(user, line) for user in self._users[line.name])
            self._from_users[line.name] = next((place for place in places if place), None)
        return self._from_users[line.name]

    def _of_user(self, user: Instruction, line: Instruction) -> Place | None:
        op_name = self._op_name(user)
        if SCOPE in op_name:
            return self._place(user)
        if op_name:
            return self._of_update(user, line)
        return self._down(user)

    def _of_update(self, user: Instruction, gradient: Instruction) -> Place | None:
        """The module whose parameter, or moments of it, `user` brings up to date from a gradient of the same sides."""
        operands = (self._known[name] for name in user.operands if name in self._known)
        alike = (line for line in operands if _sides(line) == _sides(gradient))
        modules = {module for line in alike if (module := _module_of_parameter(line))}
        return Place(module=modules.pop(), backward=True) if len(modules) == 1 else None

    def _up(self, line: Instruction) -> Place | None:
        """From what makes its operands."""
        if line.name not in self._from_operands:
            self._from_operands[line.name] = None
            makers = (self._known[name] for name in line.operands if name in self._known)
            places = (self._of_maker(maker) for maker in makers)
            self._from_operands[line.name] = next((place for place in places if place), None)
        return self._from_operands[line.name]

    def _of_maker(self, maker: Instruction) -> Place | None:
        op_name = self._op_name(maker)
        if SCOPE in op_name:
            return self._place(maker)
        if module := _module_of_parameter(maker):
            return Place(module=module, backward=False)
        return None if op_name else self._up(maker)


def _sides(line: Instruction) -> list[list[int]]:
    """Of its results, sorted: a kernel's gradient may have its axes in another order."""
    return [sorted(array.dimensions) for array in line.arrays]


def _module_of_parameter(line: Instruction) -> str:
    r"""`state.params[\'up\'][0][\'conv\'][\'kernel\']` → `up.0`; empty for what is no array of a module."""
    keys = re.search(r"^state\..*?(\[\\?'.*)", line.op_name) if line.opcode == "parameter" else None
    path = re.findall(r"\[\\?'?(\w+)", keys[1]) if keys else []
    name = module_of(SCOPE + ".".join(path[:-1])) if path[1:] else ""
    return "" if name == COMPILER else name
