"""A tiny synthetic data set, prepared once a session, and settings for runs on it."""

import gc
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import filelock
import jax
import jaxtyping
import pytest
from absl import flags

from configs import cnn, unet
from hep2jax import tasks
from hep2jax.config import Config, EvaluationConfig, TrainConfig
from hep2jax.data.sets import prepare

MEASURES = ("--config.evaluation.nuclear_diameter=48", "--config.evaluation.baselines=true")
UNET_RHYTHM = ("--config.train.log_every=2", "--config.train.eval_every=3", *MEASURES)
_QUICK = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
"""XLA's older code generator for CPUs, in one piece: it compiles a training step of `unet` in a third of the time. XLA
ends a process that asks for what it does not have, as with jax 0.12."""
_CACHE_BYTES = 4 * 2**30
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

gc.set_threshold(200_000, 20, 50)  # tracing makes many objects, of which few are garbage
flags.FLAGS.mark_as_parsed()  # grain reads a flag of its own outside absl's app


def pytest_configure(config: pytest.Config) -> None:
    """In the default lane programs take longer to compile than to run: XLA, here and in commands, optimises little."""
    if config.option.markexpr == "not slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        if jax.__version_info__ < (0, 11):
            os.environ["XLA_FLAGS"] = " ".join(
                (os.environ.get("XLA_FLAGS", ""), *_QUICK)
            )  # read with the first program
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def optimised():
    """For tests that compute more than they compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def unchecked():
    """Annotations are not checked, as for users: for tests of how functions themselves refuse what these exclude."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """The folder of prepared data sets; `hep2_synthetic/specimens_tiny` is in it."""
    directory = tmp_path_factory.mktemp("tfds")
    prepare.prepare("hep2_synthetic", "specimens_tiny", str(directory))
    return directory


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory) -> pathlib.Path:
    """One cache for all workers and the commands that tests start."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"
    directory.mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # A limit makes JAX lock the cache: without one a process could read what another has written by half.
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(_CACHE_BYTES)
    jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return directory


@pytest.fixture
def tiny_config(data_dir) -> Config:
    """A run of seconds: the smallest U-Net on 32-pixel crops of the tiny specimens."""
    config = unet.get_config()
    config.data.builder_config, config.data.data_dir, config.data.crop_size = "specimens_tiny", str(data_dir), 32
    config.model.width = 0.01
    config.train = TrainConfig(num_steps=6, global_batch_size=8, log_every=2, checkpoint_every=3)
    config.evaluation = EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=8)
    return config


@pytest.fixture
def cell_config(data_dir) -> Config:
    """A run of seconds of a cell network, whose programs compile fastest."""
    config = cnn.get_config()
    config.data.builder_config, config.data.data_dir = "specimens_tiny", str(data_dir)
    config.train = TrainConfig(num_steps=6, global_batch_size=8, log_every=2, checkpoint_every=3)
    config.evaluation.batch_size = 8
    return tasks.resolve(config)


@pytest.fixture(scope="session")
def tiny_flags(data_dir) -> list[str]:
    """The same run for the command line, with the same programs: all but the first test find them compiled."""
    return [
        "--config=configs/unet.py",
        "--config.data.builder_config=specimens_tiny",
        f"--config.data.data_dir={data_dir}",
        "--config.data.crop_size=32",
        "--config.model.width=0.01",
        "--config.train.num_steps=6",
        "--config.train.global_batch_size=8",
        "--config.evaluation.tile_size=64",
        "--config.evaluation.tile_overlap=16",
        "--config.evaluation.batch_size=8",
    ]


@pytest.fixture(scope="session")
def cell_flags(data_dir) -> list[str]:
    """A run of a cell network for the command line; its programs compile fastest."""
    return [
        "--config=configs/cnn.py",
        "--config.data.builder_config=specimens_tiny",
        f"--config.data.data_dir={data_dir}",
        "--config.train.num_steps=4",
        "--config.train.global_batch_size=8",
        "--config.train.log_every=2",
        "--config.evaluation.batch_size=8",
    ]


@pytest.fixture(scope="session")
def unet_run(compilation_cache, command, tiny_flags) -> pathlib.Path:
    """The work directory of that run, made once for all workers: read it, and copy it before changing it."""
    workdir = compilation_cache.parent / "unet"
    with filelock.FileLock(f"{workdir}.lock"):
        if not workdir.exists():
            done = command("hep2jax.main", *tiny_flags, f"--workdir={workdir}", *UNET_RHYTHM, new=True)
            (compilation_cache.parent / "unet.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return workdir


class Forks:
    """The process that runs commands in forks of itself (`tests.forks`); it starts with the first command."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, str]):
        self._folder, self._settings = folder, settings
        self._process: subprocess.Popen | None = None
        self._commands: list[list[str]] = []

    def run(self, module: str, arguments: Sequence[str]) -> subprocess.CompletedProcess:
        self.start([(module, list(arguments), None)])
        return self.wait()[0]

    def start(self, commands: Sequence[tuple[str, list[str], int | None]]) -> list[int]:
        """Run (module, flags, number of devices) at the same time; the ids of their processes."""
        if self._process is None:
            line = [sys.executable, "-m", "tests.forks"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(line, cwd=REPOSITORY, env=self._settings, **pipes)
        for number, _ in enumerate(commands):
            for output in self.outputs(number):
                output.write_text("")
        self._commands = [[module, *flags] for module, flags, _ in commands]
        files = [[str(output) for output in self.outputs(number)] for number, _ in enumerate(commands)]
        jobs = [[*command[:2], *paths, command[2]] for command, paths in zip(commands, files, strict=True)]
        assert self._process.stdin is not None
        print(json.dumps(jobs), file=self._process.stdin, flush=True)
        return self._answer()

    def wait(self) -> list[subprocess.CompletedProcess]:
        """What came of the commands."""
        return [
            subprocess.CompletedProcess(command, code, *(output.read_text() for output in self.outputs(number)))
            for number, (command, code) in enumerate(zip(self._commands, self._answer(), strict=True))
        ]

    def outputs(self, number: int) -> list[pathlib.Path]:
        """The files with what a command says on stdout and stderr."""
        return [self._folder / f"{name}{number}" for name in ("stdout", "stderr")]

    def _answer(self) -> list[int]:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="session")
def forks(compilation_cache, tmp_path_factory):
    """The commands of a session that run in forks."""
    settings = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}
    forks = Forks(tmp_path_factory.mktemp("commands"), settings)
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def command(compilation_cache, forks):
    """Runs `python -m <module> <flags>` in the repository: `command(module, *flags, env=...)`.

    A command with settings of its own, and one that is only started, is a new process; the others are forks of one that
    has imported what they need, unless `new`.
    """
    usual = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}

    def run(
        module: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        start: bool = False,
        new: bool = False,
        limit: int = 300,
    ):
        if not (env or start or new):
            return forks.run(module, arguments)
        settings = {**usual, **(env or {})}
        line = [sys.executable, "-m", module, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if start:
            return subprocess.Popen(line, cwd=REPOSITORY, env=settings, **pipes)
        return subprocess.run(line, cwd=REPOSITORY, env=settings, timeout=limit, **pipes)

    return run


class Together:
    """A run of several processes over loopback: `start` and `wait`, or both at once by a call."""

    def __init__(self, forks: Forks):
        self._forks = forks

    def __call__(self, module: str, *flags: str, processes: int, devices: int) -> list[subprocess.CompletedProcess]:
        self.start(module, *flags, processes=processes, devices=devices)
        return self.wait()

    def start(self, module: str, *flags: str, processes: int, devices: int) -> list[int]:
        """The ids of the processes. `{number}` in a flag stands for the number of the process."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            where = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", f"--num_processes={processes}"]
        flags = (*flags, *where, "--process_id={number}") if processes > 1 else flags
        each = [[flag.replace("{number}", str(number)) for flag in flags] for number in range(processes)]
        return self._forks.start([(module, mine, devices) for mine in each])

    def said(self, number: int) -> str:
        """What a process has said on stdout until now."""
        return self._forks.outputs(number)[0].read_text()

    def wait(self) -> list[subprocess.CompletedProcess]:
        return self._forks.wait()


@pytest.fixture(scope="session")
def together(forks) -> Together:
    return Together(forks)
