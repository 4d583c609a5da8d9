"""The target that a network is traced for, by which the operations of this package choose their formulation."""

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import jax

PLAIN = "plain"
"""Not a real platform: it makes operations use XLA's own formulation, which every platform can run."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The hardware that will run a traced function."""

    platform: str
    """As `jax.default_backend` names it. Platforms without formulations of their own use the plain ones."""
    devices: int
    """The number of devices that share a batch."""


# A user context of JAX, not a `ContextVar`: it is part of the key of JAX's caches, so that a function that was traced
# for one target is traced again for another.
_context: Any = jax.make_user_context(None)


def target(platform: str, *, devices: int = 1) -> AbstractContextManager[None]:
    """Within this context operations are traced for `devices` of `platform`; without it, for the devices in use.

    It must be active while a function is traced, which is when the function is first called, lowered or
    differentiated, not when the network is built.
    """
    return _context(Target(platform, devices))


def current() -> Target:
    """The target of the function that is being traced."""
    return _context.value or Target(jax.default_backend(), jax.device_count())
