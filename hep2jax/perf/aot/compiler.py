"""Compilations in processes of their own, with their progress shown and their results kept on disk."""

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
"""Of the processes that compile: no chip is looked for, and several may load libtpu."""
_SAY_EVERY = 60.0
_SOURCES: tuple[types.ModuleType, ...] = (models, ops, tasks, losses, optimizers, packing, states, steps, meshes)
_SOURCES += (model_flops, scopes, slices, worker)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a compilation gave."""

    target: slices.Slice
    images_per_chip: int
    record: dict[str, Any]
    """`status` (compiled, out of memory, out of time), `seconds`, and of a program its FLOPs and memory."""
    text: str
    """The compiled program; empty where there is none."""

    @property
    def is_done(self) -> bool:
        """Whether there is a program."""
        return self.record["status"] == "compiled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiler:
    """Compiles one configuration for any slice and batch size."""

    config: Config
    cache: pathlib.Path
    limit_seconds: float

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output, by the patterns of the configured data set."""
        return tasks.num_outputs(self.config, tasks.patterns(self.config))

    def compile(self, target: slices.Slice, images_per_chip: int) -> Compiled:
        """From the cache, or by the TPU compiler, which takes minutes.

        Raises:
            RuntimeError: the compiler failed, for another reason than want of memory or time.
        """
        request = {
            "config": configs.to_dict(self.config),
            "slice": target.name,
            "images_per_chip": images_per_chip,
            "num_outputs": self.num_outputs,
        }
        folder = self.cache / self.key(target, images_per_chip)
        what = f"{self.config.model.name} for {target.name}, {images_per_chip} images per chip"
        if (folder / "record.json").is_file():
            say(f"compiled before: {what}")
        elif not self._run(request, folder, what):
            record = {"status": "out of time", "seconds": self.limit_seconds}
            return Compiled(target=target, images_per_chip=images_per_chip, record=record, text="")
        record, program = json.loads((folder / "record.json").read_text()), folder / "program.txt.gz"
        text = gzip.decompress(program.read_bytes()).decode() if program.is_file() else ""
        return Compiled(target=target, images_per_chip=images_per_chip, record=record, text=text)

    def key(self, target: slices.Slice, images_per_chip: int) -> str:
        """Name of the cached result: what decides the program, hashed, with the versions and our own sources."""
        values = configs.to_dict(self.config)
        sections = {name: values[name] for name in ("seed", "model", "loss", "optimizer")}
        size = [values["data"]["crop_size"], values["train"]["num_steps"], target.name, images_per_chip]
        text = json.dumps([sections, size, self.num_outputs, versions(), _sources_digest()], sort_keys=True)
        return f"{self.config.model.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def _run(self, request: dict[str, Any], folder: pathlib.Path, what: str) -> bool:
        """False where it took longer than the limit."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
            out = pathlib.Path(scratch) / "out"
            out.mkdir()
            (pathlib.Path(scratch) / "request.json").write_text(json.dumps(request))
            say(f"compiling {what} ...")
            start = time.monotonic()
            if not self._wait(pathlib.Path(scratch), start):
                say(f"given up after {self.limit_seconds:.0f} s")
                return False
            status = json.loads((out / "record.json").read_text())["status"]
            say(f"{status}, {time.monotonic() - start:.0f} s")
            shutil.rmtree(folder, ignore_errors=True)
            out.rename(folder)
        return True

    def _wait(self, scratch: pathlib.Path, start: float) -> bool:
        command = [sys.executable, "-m", "hep2jax.perf.aot.worker", str(scratch / "request.json"), str(scratch / "out")]
        log = scratch / "log.txt"
        with (
            log.open("w") as file,
            subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT) as process,
        ):
            try:
                while process.poll() is None:
                    if not _has_ended(process, min(_SAY_EVERY, start + self.limit_seconds - time.monotonic())):
                        passed = time.monotonic() - start
                        if passed >= self.limit_seconds:
                            return False
                        say(f"still compiling, {passed:.0f} s")
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
    """UsageError without libtpu, which holds the TPU compiler."""
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError("compiling for TPUs needs libtpu (Linux on x86-64): pip install 'hep2jax[aot]'")


def versions() -> dict[str, str]:
    """Of what makes the program."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}


def sources() -> list[pathlib.Path]:
    """The files of this package that decide the program; values of the configuration are a part of the key apart."""
    return sorted(path for module in _SOURCES for path in _files(module))


def _files(module: types.ModuleType) -> list[pathlib.Path]:
    """Of a package, every file in its folder."""
    path = pathlib.Path(str(module.__file__))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()
