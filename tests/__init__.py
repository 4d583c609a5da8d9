"""Tests check that arrays have the shapes and dtypes that the package's annotations say (jaxtyping, with beartype)."""

import importlib
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int passes for a float
_check = jaxtyping.jaxtyped


def _has_arrays(hint: Any) -> bool:
    return isinstance(hint, type(jaxtyping.AbstractArray)) or any(map(_has_arrays, get_args(hint)))


def _where_there_are_arrays(*, typechecker: Callable) -> Callable:
    """The hook's decorator, where annotations have arrays: a check takes about 20 µs, too long for every function."""

    def decorate(target: Any) -> Any:
        checked = any(map(_has_arrays, getattr(target, "__annotations__", {}).values()))
        return _check(target, typechecker=typechecker) if checked else target

    return decorate


# What the package imports first would be compiled anew within the hook, in every process: some seconds.
for library in ("flax.nnx", "grain", "optax", "orbax.checkpoint", "skimage.measure", "sklearn", "tensorflow_datasets"):
    importlib.import_module(library)

jaxtyping.jaxtyped = _where_there_are_arrays
jaxtyping.install_import_hook("hep2jax", "tests.check_types")  # before anything imports the package
