"""Adds the names of modules to the operations that they trace, so that a compiled program can be split by module."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from hep2jax.perf.aot.hlo import SCOPE
from hep2jax.training.state import Network

_NAME = "scope_name"


def name_modules(network: Network) -> Network:
    """A copy of the network in which each module is traced in a scope `module.<path>`, e.g. `module.stages.0.1.conv`.

    NNX does not add such scopes. The modules become instances of subclasses that open a scope; nothing else changes.
    """
    abstract = nnx.eval_shape(lambda: network.build(jax.random.key(0)))
    classes: dict[type, type] = {}
    for path, module in nnx.iter_modules(abstract):
        kind = type(module)
        if path and callable(module):
            module.__class__ = classes.setdefault(kind, _scoped(kind))
            setattr(module, _NAME, SCOPE + ".".join(map(str, path)))
    return dataclasses.replace(network, graphdef=nnx.split(abstract, nnx.Param, nnx.BatchStat)[0])


def _scoped(kind: type) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(getattr(self, _NAME)):
            return kind.__call__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call})
