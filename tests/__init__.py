"""Tests check what the package's annotations claim: shapes and dtypes (jaxtyping), and types."""

import importlib
from typing import Any, Self

import jaxtyping
from beartype import BeartypeConf, FrozenDict, beartype

# What the package imports first would be compiled anew within the hook, in every process: some seconds.
for library in (
    "flax.nnx",
    "grain",
    "optax",
    "orbax.checkpoint",
    "skimage.measure",
    "sklearn.svm",
    "tensorflow_datasets",
):
    importlib.import_module(library)

check_types = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int passes for a float
        hint_overrides=FrozenDict({Self: Any}),  # beartype knows `Self` only where it decorates the class
    )
)
jaxtyping.install_import_hook("hep2jax", "tests.check_types")  # before anything imports the package
