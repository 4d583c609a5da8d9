"""One file for each thing that a user would run; `get_config(variant)` gives its plain form or one of `VARIANTS`."""

import importlib
import importlib.util

from hep2jax.config import Config
from hep2jax.errors import UsageError


def load_config(name: str) -> Config:
    """What `configs/FILE.py:VARIANT` says, by the name `FILE:VARIANT`, such as `resnet:published`, or `FILE`.

    `hep2jax.models.resolve` makes of it what a run takes.

    Raises:
        UsageError: there is no such file or no such variant.
    """
    file, _, variant = name.partition(":")
    if not importlib.util.find_spec(f"{__name__}.{file}"):
        raise UsageError(f"there is no configuration configs/{file}.py")
    return importlib.import_module(f"{__name__}.{file}").get_config(variant)
