"""Runs compilations in separate processes, prints their progress and caches their results on disk."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import types
from typing import Any

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import models, ops, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.perf import model_flops
from hep2jax.perf.aot import scopes, slices, worker
from hep2jax.progress import say
from hep2jax.training import losses, optimizers, packing, steps
from hep2jax.training import state as states

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_LOG_DIR": "disabled",
}
"""Environment variables of the compiling processes: they do not search for a TPU, and several can load libtpu."""
_SECONDS_BETWEEN_MESSAGES = 60.0
_SOURCES: tuple[types.ModuleType, ...] = (models, ops, tasks, losses, optimizers, packing, states, steps, meshes)
_SOURCES += (model_flops, scopes, slices, worker)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """The result of a compilation."""

    target: slices.Slice
    images_per_chip: int
    record: dict[str, Any]
    """`status` (compiled, out of memory, out of time) and `seconds`; if compiled, also FLOPs and memory."""
    text: str
    """The text of the compiled program; empty if there is none."""

    @property
    def is_done(self) -> bool:
        """Whether the compilation succeeded."""
        return self.record["status"] == "compiled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiler:
    """Compiles one configuration for any slice and batch size."""

    config: Config
    cache: pathlib.Path
    limit_seconds: float

    @property
    def num_outputs(self) -> int:
        """Number of output channels of the network, which depends on the patterns of the data set."""
        return tasks.num_outputs(self.config, tasks.patterns(self.config))

    def compile(self, target: slices.Slice, images_per_chip: int) -> Compiled:
        """Return the cached result, or run the TPU compiler, which takes minutes.

        Raises:
            RuntimeError: the compiler failed for a reason other than lack of memory or time.
        """
        request = {
            "config": configs.to_dict(self.config),
            "slice": target.name,
            "images_per_chip": images_per_chip,
            "num_outputs": self.num_outputs,
        }
        folder = self.cache / self.key(target, images_per_chip)
        description = f"{self.config.model.name} for {target.name}, {images_per_chip} images per chip"
        if (folder / "record.json").is_file():
            say(f"already compiled: {description}")
        elif not self._run(request, folder, description):
            record = {"status": "out of time", "seconds": self.limit_seconds}
            return Compiled(target=target, images_per_chip=images_per_chip, record=record, text="")
        record, program = json.loads((folder / "record.json").read_text()), folder / "program.txt.gz"
        text = gzip.decompress(program.read_bytes()).decode() if program.is_file() else ""
        return Compiled(target=target, images_per_chip=images_per_chip, record=record, text=text)

    def key(self, target: slices.Slice, images_per_chip: int) -> str:
        """Name of the cached result: a hash of all that determines the program, with versions and our source files."""
        values = configs.to_dict(self.config)
        sections = {name: values[name] for name in ("seed", "model", "loss", "optimizer")}
        size = [values["data"]["crop_size"], values["train"]["num_steps"], target.name, images_per_chip]
        text = json.dumps([sections, size, self.num_outputs, versions(), _sources_digest()], sort_keys=True)
        return f"{self.config.model.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def _run(self, request: dict[str, Any], folder: pathlib.Path, description: str) -> bool:
        """Compile in a subprocess and move the result to `folder`; returns False if the time limit was exceeded."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
            output = pathlib.Path(scratch) / "out"
            output.mkdir()
            (pathlib.Path(scratch) / "request.json").write_text(json.dumps(request))
            say(f"compiling {description} ...")
            start = time.monotonic()
            if not self._wait(pathlib.Path(scratch), start):
                say(f"stopped after {self.limit_seconds:.0f} s")
                return False
            status = json.loads((output / "record.json").read_text())["status"]
            say(f"{status}, {time.monotonic() - start:.0f} s")
            # Renaming the complete folder keeps partial results out of the cache.
            shutil.rmtree(folder, ignore_errors=True)
            output.rename(folder)
        return True

    def _wait(self, scratch: pathlib.Path, start: float) -> bool:
        """Run the compiling process; returns False if the time limit was exceeded."""
        command = [sys.executable, "-m", "hep2jax.perf.aot.worker", str(scratch / "request.json"), str(scratch / "out")]
        log = scratch / "log.txt"
        with (
            log.open("w") as file,
            subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT) as process,
        ):
            try:
                while process.poll() is None:
                    if not _has_ended(
                        process, min(_SECONDS_BETWEEN_MESSAGES, start + self.limit_seconds - time.monotonic())
                    ):
                        elapsed = time.monotonic() - start
                        if elapsed >= self.limit_seconds:
                            return False
                        say(f"still compiling, {elapsed:.0f} s")
            finally:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"the TPU compiler failed (exit {process.returncode}): {log.read_text()[-3000:]}")
        return True


def _has_ended(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def check_installed() -> None:
    """Raise UsageError if libtpu, which contains the TPU compiler, is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError("compiling for TPUs needs libtpu (Linux on x86-64): pip install 'hep2jax[aot]'")


def versions() -> dict[str, str]:
    """Versions of the packages that determine the program."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}


def sources() -> list[pathlib.Path]:
    """The source files of this package that determine the program; configuration values are hashed separately."""
    return sorted(path for module in _SOURCES for path in _files(module))


def _files(module: types.ModuleType) -> list[pathlib.Path]:
    """The file of a module, or all files of a package."""
    path = pathlib.Path(str(module.__file__))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()
