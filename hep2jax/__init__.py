"""hep2jax: deep networks that read HEp-2 immunofluorescence images, in JAX.

import hep2jax

reader = hep2jax.load("runs/fcn")
reading = reader(image)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hep2jax.api import (
        Reader,
        Reading,
        build_model,
        evaluate,
        load,
        load_config,
        load_dataset,
        load_single_cell_system,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "Reader",
    "Reading",
    "build_model",
    "evaluate",
    "load",
    "load_config",
    "load_dataset",
    "load_single_cell_system",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that importing the package itself is cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hep2jax import api

    return getattr(api, name)
