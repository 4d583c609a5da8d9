"""`--mode=profile`: where the time of a training step goes, by module, from a trace of this machine's devices."""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.profiler import ProfileData

from hep2jax import chips, tasks, timing, training, workdir
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.aot import scopes
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.profiling import page, summary, tables, trace
from hep2jax.progress import say
from hep2jax.timing import StepClock
from hep2jax.training import Feed, Run

__all__ = ["run"]

WARM_UP = 2
"""Calls before anything is timed: the first ones allocate and fill caches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of the steps."""

    num_steps: int
    without_trace: dict[str, float]
    """`timing.rates` and `timing.efficiency` by the wall clock."""
    with_trace: dict[str, float]
    """The same of the steps that were traced; tracing slows them."""
    memory: dict[str, int]
    text: str
    """The compiled program."""


def run(config: Config, directory: pathlib.Path, num_steps: int = 10) -> None:
    """Time `num_steps` steps, trace as many more, print the tables, write `profile/profile.json` and `profile.html`.

    The steps are those that training would do next, from the work directory's newest checkpoint or from fresh
    parameters, by the same program. Nothing is trained: only `profile/` changes in the work directory (a new one
    gets its `config.json`). `xprof DIR/profile` opens the trace.

    Raises:
        UsageError: training would refuse the work directory; no step to profile; libtpu would end the process.
    """
    if num_steps < 1:
        raise UsageError(f"--profile_steps={num_steps}: must be at least 1")
    meshes.check_divides("train.global_batch_size", config.train.global_batch_size)
    _check_profiler()
    folder = directory / workdir.PROFILE
    if jax.process_index() == 0:
        _open(directory, config)
    with _prepared(config, directory) as this:
        found = _measure(this, folder, num_steps)
        if this.is_chief:
            _report(this, folder, found)


def _check_profiler() -> None:
    """UsageError where a trace would crash: JAX loads libtpu if it is there, and registers its profiler.

    Seen with libtpu 0.0.52 and jaxlib 0.10.2, on machines without a TPU: a segmentation fault as the trace starts.
    """
    backend, maps = jax.default_backend(), pathlib.Path("/proc/self/maps")
    if backend == "tpu" or not maps.exists() or "libtpu.so" not in maps.read_text():
        return
    platforms = "cpu" if backend == "cpu" else "cuda,cpu"
    raise UsageError(
        f"libtpu {importlib.metadata.version('libtpu')} is loaded, whose profiler crashes where there is no TPU: "
        f"put JAX_PLATFORMS={platforms} before the command"
    )


def _open(directory: pathlib.Path, config: Config) -> None:
    """Refuse what training refuses; a directory that is a run already keeps its configuration, byte by byte."""
    path = directory / workdir.CONFIG
    before = path.read_bytes() if path.exists() else None
    workdir.open_for_training(directory, config)
    if before is not None:
        path.write_bytes(before)


@contextlib.contextmanager
def _prepared(config: Config, directory: pathlib.Path) -> Iterator[Run]:
    """The run as training prepares it, in a folder of its own, into which the checkpoints are linked.

    Training cuts `metrics.jsonl` to the newest checkpoint and opens its logs; a profile must not.
    """
    scratch, checkpoints = directory / workdir.PROFILE / "scratch", directory / "checkpoints"
    if jax.process_index() == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        if checkpoints.exists():
            (scratch / "checkpoints").symlink_to(checkpoints.absolute())
    multihost_utils.sync_global_devices("scratch")
    clock = StepClock()
    this = training.prepare(config, scratch, clock, tasks.load(config))
    try:
        yield this
    finally:
        this.checkpoints.close()
        this.writer.close()
        multihost_utils.sync_global_devices("profiled")
        if jax.process_index() == 0:
            shutil.rmtree(scratch)


def _measure(this: Run, folder: pathlib.Path, num_steps: int) -> Measured:
    per_call = this.config.train.steps_per_call
    calls = -(-num_steps // per_call)
    last = this.step + (WARM_UP + 2 * calls) * per_call
    with training.open_feed(this, this.step, last) as feed:
        batch = next(feed.batches)
        compiled = _compile(this, batch, feed)
        memory = summary.memory(compiled, this.state, batch)
        this.state, _ = compiled(this.state, batch, feed.constants)
        _steps(this, compiled, feed, WARM_UP - 1)
        without_trace = _steps(this, compiled, feed, calls)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # Python's frames would slow the host and swell the file
        with jax.profiler.trace(str(folder), profiler_options=options):
            with_trace = _steps(this, compiled, feed, calls)
    return Measured(
        num_steps=calls * per_call,
        without_trace=without_trace,
        with_trace=with_trace,
        memory=memory,
        text=compiled.as_text() or "",
    )


def _compile(this: Run, batch: Any, feed: Feed) -> jax.stages.Compiled:
    """The program of training, its operations named by module."""
    # The compilation cache takes programs that differ in names alone for one: training's would come back, without.
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        return training.compile_step(this, batch, feed.constants, network=scopes.name_modules(this.network))
    finally:
        jax.config.update(name, before)


def _steps(this: Run, compiled: jax.stages.Compiled, feed: Feed, calls: int) -> dict[str, float]:
    """Call the program so often; the figures of the steps by the wall clock, the wait for their end included."""
    this.clock.window()
    metrics = None
    with jax.profiler.TraceAnnotation(trace.WINDOW):
        for call in range(calls):
            with jax.profiler.StepTraceAnnotation(trace.STEP, step_num=call):
                batch = training.next_batch(this, feed.batches, metrics)
                with this.clock.phase("step"):
                    this.state, metrics = compiled(this.state, batch, feed.constants)
        with this.clock.phase("step"):
            jax.block_until_ready(this.state)
    return _figures(this, this.clock.window(), calls * this.config.train.steps_per_call)


def _figures(this: Run, seconds: dict[str, float], num_steps: int) -> dict[str, float]:
    devices, chip = jax.device_count(), chips.find(jax.devices()[0].device_kind)
    batch, dtype = this.config.train.global_batch_size, states.compute_dtype(this.config).name
    figures = timing.rates(seconds, steps=num_steps, batch=batch, devices=devices)
    efficiency = timing.efficiency(this.program, figures["step_seconds"], devices=devices, chip=chip, dtype=dtype)
    return figures | efficiency


def _report(this: Run, folder: pathlib.Path, found: Measured) -> None:
    path = trace.newest(folder)
    name = re.search(r"^HloModule ([\w.\-]+)", found.text)
    assert name is not None
    data = trace.read(ProfileData.from_file(str(path)), name[1])
    profile = summary.summarise(data, found.text, found.num_steps)
    shown = tables.all_tables(profile, found.without_trace, found.with_trace, found.memory)
    facts = page.facts(this.config, found.num_steps, str(path.relative_to(folder)))
    say(tables.text(shown))
    page.write(folder, facts, shown, profile, dataclasses.asdict(found))
    say(f"written: {folder / 'profile.html'}, profile.json; the trace: xprof --port 8791 {folder}")
