"""Finds and reads a configuration by its name: `fcn`, `fcn.py` or `configs/fcn.py`, optionally with `:argument`."""

import difflib
import importlib.util
import inspect
import pathlib
import re
import sys
import types
import zlib

from hep2jax.config import Config
from hep2jax.errors import UsageError


def shipped() -> pathlib.Path:
    """The folder of the shipped configurations: inside the package when installed, beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load(name: str) -> Config:
    """The configuration that the `get_config` of a file returns.

    Args:
        name: a path, or the name of a file in `configs/` of the working directory or among the shipped ones, with or
            without `.py`; the first that exists is taken. The text after a colon is passed to `get_config`.

    Raises:
        UsageError: there is no such file, it has no function `get_config`, or that function takes no argument although
            one is given or returns something other than a `Config`.
    """
    path, colon, argument = name.partition(":")
    file = _find(path)
    get_config = getattr(_execute(file), "get_config", None)
    if get_config is None:
        raise UsageError(f"--config={name}: {file} has no function get_config")
    if colon and not inspect.signature(get_config).parameters:
        raise UsageError(f"--config={name}: {file} takes no argument after a colon")
    config = get_config(argument) if colon else get_config()
    if not isinstance(config, Config):
        raise UsageError(f"--config={name}: get_config() of {file} does not return a hep2jax Config")
    return config


def run_name(name: str) -> str:
    """The name of a run of the configuration: `resnet-published` for `configs/resnet.py:published`."""
    path, _, argument = name.partition(":")
    return "-".join([pathlib.Path(path).stem, *re.findall(r"[\w.-]+", argument)])


def _find(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    file = path if path.suffix == ".py" else path.with_name(f"{path.name}.py")
    candidates = [path, file]
    if path.parent in (pathlib.Path(), pathlib.Path("configs")):
        candidates += ["configs" / pathlib.Path(file.name), shipped() / file.name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(shipped_file.stem for shipped_file in shipped().glob("[!_]*.py"))
    near = difflib.get_close_matches(file.stem, known, n=1, cutoff=0.0)
    raise UsageError(f"--config={name}: no such file; the nearest of the shipped configurations is '{near[0]}'")


def _execute(file: pathlib.Path) -> types.ModuleType:
    """Import the file as a module of a package, its folder, so that `from . import cnn` finds files beside it."""
    folder = file.resolve().parent
    package = types.ModuleType(f"hep2jax_configs_{zlib.crc32(bytes(folder)):08x}")
    package.__path__ = [str(folder)]
    sys.modules.setdefault(package.__name__, package)
    spec = importlib.util.spec_from_file_location(f"{package.__name__}.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
