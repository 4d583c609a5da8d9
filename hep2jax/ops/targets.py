"""What a network is traced for: the operations of this package choose their formulation by it."""

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import jax

PLAIN = "plain"
"""A platform that is none: operations take XLA's own formulation, which every platform runs."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The machine that will run what is traced."""

    platform: str
    """As `jax.default_backend` names it; those without formulations of their own get the plain ones."""
    devices: int
    """How many share a batch."""


# A context of JAX's and not a `ContextVar`: it is part of the key of JAX's caches, so that a function that was traced
# for one target is traced anew for another.
_context: Any = jax.make_user_context(None)


def target(platform: str, *, devices: int = 1) -> AbstractContextManager[None]:
    """Within this context operations are traced for `devices` of `platform`; without one, for the devices at hand.

    It must be active while a function is traced, which is when it is first called, lowered or differentiated, and not
    when the network is built.
    """
    return _context(Target(platform, devices))


def current() -> Target:
    """The target of what is being traced."""
    return _context.value or Target(jax.default_backend(), jax.device_count())
