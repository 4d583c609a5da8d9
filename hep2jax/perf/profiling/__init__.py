"""`--mode=profile`: measures the time of a training step by module, with a profiler trace on this machine."""

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.profiler import ProfileData

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.perf import advice, chips
from hep2jax.perf.advice import Evidence
from hep2jax.perf.aot import hlo, scopes
from hep2jax.perf.profiling import page, summary, tables, trace
from hep2jax.perf.profiling.summary import Profile
from hep2jax.progress import say
from hep2jax.training import loop, timing, workdir
from hep2jax.training import state as states
from hep2jax.training.loop import Feed, Run
from hep2jax.training.timing import StepClock

__all__ = ["run"]

WARM_UP = 2
"""Number of calls before timing: the first calls allocate memory and fill caches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMeasurements:
    """Measurements of the profiled steps."""

    num_steps: int
    without_trace: dict[str, float]
    """`timing.rates` and `timing.efficiency` of the steps without trace, by the wall clock."""
    with_trace: dict[str, float]
    """The same for the traced steps, which tracing slows down."""
    cores_busy: float
    """Processor seconds of this process for each second of the steps without trace."""
    memory: dict[str, int]
    """Bytes by category, from `summary.memory`."""
    text: str
    """Text of the compiled program."""


def run(config: Config, directory: pathlib.Path, num_steps: int = 10) -> None:
    """Time `num_steps` steps, trace the same number, print tables, and write `profile/profile.json` and `profile.html`.

    The steps are those that training would execute next, with the same program, from the newest checkpoint of the work
    directory or from new parameters. The updated parameters are not saved: only `profile/` changes in the work
    directory, and a new directory gets its `config.json`. `xprof DIR/profile` opens the trace.

    Raises:
        UsageError: training cannot use the work directory, `num_steps` is less than 1, or the profiler of libtpu would
            crash.
    """
    if num_steps < 1:
        raise UsageError(f"--profile_steps={num_steps}: must be at least 1")
    meshes.check_divides("train.global_batch_size", config.train.global_batch_size)
    _check_profiler()
    folder = directory / workdir.PROFILE
    if jax.process_index() == 0:
        _open(directory, config)
    with _prepare_run(config, directory) as training_run:
        measured = _measure(training_run, folder, num_steps)
        if training_run.is_chief:
            _report(training_run, folder, measured)


def _check_profiler() -> None:
    """Raise UsageError if tracing would crash: JAX loads libtpu if it is installed, and registers its profiler.

    With libtpu 0.0.52 and jaxlib 0.10.2 on machines without a TPU, a segmentation fault was observed when the trace
    started.
    """
    backend, maps = jax.default_backend(), pathlib.Path("/proc/self/maps")
    if backend == "tpu" or not maps.exists() or "libtpu.so" not in maps.read_text():
        return
    platforms = "cpu" if backend == "cpu" else "cuda,cpu"
    raise UsageError(
        f"libtpu {importlib.metadata.version('libtpu')} is loaded, whose profiler crashes without a TPU: "
        f"put JAX_PLATFORMS={platforms} before the command"
    )


def _open(directory: pathlib.Path, config: Config) -> None:
    """Check the work directory as training does, but restore the exact bytes of an existing configuration."""
    path = directory / workdir.CONFIG
    before = path.read_bytes() if path.exists() else None
    workdir.open_for_training(directory, config)
    if before is not None:
        path.write_bytes(before)


@contextlib.contextmanager
def _prepare_run(config: Config, directory: pathlib.Path) -> Iterator[Run]:
    """Prepare the run as training does, but in a scratch folder: a profile must not change the run.

    It starts with fresh parameters, whose values do not change the time of a step.
    """
    scratch = directory / workdir.PROFILE / "scratch"
    if jax.process_index() == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    multihost_utils.sync_global_devices("scratch")
    clock = StepClock()
    training_run = loop.prepare(config, scratch, clock, tasks.load(config))
    try:
        yield training_run
    finally:
        loop.close(training_run)
        multihost_utils.sync_global_devices("profiled")
        if jax.process_index() == 0:
            shutil.rmtree(scratch)


def _measure(training_run: Run, folder: pathlib.Path, num_steps: int) -> StepMeasurements:
    per_call = training_run.config.train.steps_per_call
    calls = -(-num_steps // per_call)
    last = training_run.step + (WARM_UP + 2 * calls) * per_call
    with loop.open_feed(training_run, training_run.step, last) as feed:
        batch = next(feed.batches)
        compiled = _compile(training_run, batch, feed)
        memory = summary.memory(compiled, training_run.state, batch)
        # The step donates its state: the old arrays are invalid, so the new state must replace them at once.
        training_run.state, _ = compiled(training_run.state, batch, feed.constants)
        _time_steps(training_run, compiled, feed, WARM_UP - 1)
        processor, wall = time.process_time(), time.perf_counter()
        without_trace = _time_steps(training_run, compiled, feed, calls)
        cores_busy = (time.process_time() - processor) / (time.perf_counter() - wall)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # Python frames would slow down the host and enlarge the file
        with jax.profiler.trace(str(folder), profiler_options=options):
            with_trace = _time_steps(training_run, compiled, feed, calls)
    return StepMeasurements(
        num_steps=calls * per_call,
        without_trace=without_trace,
        with_trace=with_trace,
        cores_busy=cores_busy,
        memory=memory,
        text=compiled.as_text() or "",
    )


def _compile(training_run: Run, batch: Any, feed: Feed) -> jax.stages.Compiled:
    """The training program, with operations named by module."""
    # By default, the compilation cache ignores names, and would return the cached training program without them.
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        return loop.compile_step(training_run, batch, feed.constants, network=scopes.name_modules(training_run.network))
    finally:
        jax.config.update(name, before)


def _time_steps(training_run: Run, compiled: jax.stages.Compiled, feed: Feed, calls: int) -> dict[str, float]:
    """Execute the program `calls` times; returns rates by the wall clock, including the wait for the last step."""
    training_run.clock.window()
    metrics = None
    with jax.profiler.TraceAnnotation(trace.WINDOW):
        for call in range(calls):
            with jax.profiler.StepTraceAnnotation(trace.STEP, step_num=call):
                batch = loop.next_batch(training_run.clock, feed.batches, metrics)
                with training_run.clock.phase("step"):
                    training_run.state, metrics = compiled(training_run.state, batch, feed.constants)
        with training_run.clock.phase("step"):
            jax.block_until_ready(training_run.state)
    return _rates(training_run, training_run.clock.window(), calls * training_run.config.train.steps_per_call)


def _rates(training_run: Run, seconds: dict[str, float], num_steps: int) -> dict[str, float]:
    devices, chip = jax.device_count(), chips.find(jax.devices()[0].device_kind)
    batch, dtype = training_run.config.train.global_batch_size, states.compute_dtype(training_run.config).name
    rates = timing.rates(seconds, steps=num_steps, batch=batch, devices=devices)
    efficiency = timing.efficiency(training_run.program, rates["step_seconds"], devices=devices, chip=chip, dtype=dtype)
    return rates | efficiency


def _report(training_run: Run, folder: pathlib.Path, measured: StepMeasurements) -> None:
    path = trace.newest(folder)
    module_name = re.search(r"^HloModule ([\w.\-]+)", measured.text)
    assert module_name is not None
    data = trace.read(ProfileData.from_file(str(path)), module_name[1])
    profile = summary.summarise(data, measured.text, measured.num_steps)
    profile_tables = tables.all_tables(profile, measured.without_trace, measured.with_trace, measured.memory)
    evidence = _evidence(training_run, profile, measured)
    profile_tables.append(advice.table(evidence, training_run.config))
    facts = page.facts(training_run.config, measured.num_steps, str(path.relative_to(folder)))
    say(tables.text(profile_tables))
    values = dataclasses.asdict(measured) | {"advice": advice.to_dict(evidence, training_run.config)}
    page.write(folder, facts, profile_tables, profile, values)
    say(f"written: {folder / 'profile.html'}, profile.json; to see the trace: xprof --port 8791 {folder}")


def _evidence(training_run: Run, profile: Profile, measured: StepMeasurements) -> Evidence:
    """What the profile says of a step. Times in the trace are scaled to the steps without it, which are faster."""
    rates, step = measured.without_trace, measured.without_trace["step_seconds"]
    scale = step / profile.step_seconds
    by_module = {row.module: row.seconds * scale for row in profile.modules}
    slowest = next((row for row in profile.modules if not row.module.startswith("(")), None)
    waiting = rates["data_wait_share"] * step
    platform, program = jax.default_backend(), training_run.program
    chip = chips.find(jax.devices()[0].device_kind)
    peak = chip.peak_flops(states.compute_dtype(training_run.config).name) if chip else None
    return Evidence(
        platform=platform,
        step=step,
        waiting=waiting,
        idle=max(0.0, by_module.get(trace.IDLE, 0.0) - waiting),
        products=scale * sum(row.seconds for row in profile.operations if row.flops),
        optimizer=by_module.get(hlo.OPTIMIZER, 0.0),
        arithmetic=program.flops / peak if peak else None,
        traffic=program.bytes_accessed / chip.hbm_bandwidth if chip else None,
        memory_share=measured.memory.get("total", 0) / chip.hbm_bytes if chip and measured.memory else None,
        cores_busy=measured.cores_busy if platform == "cpu" else None,
        cores=len(os.sched_getaffinity(0)) if platform == "cpu" else None,
        devices=jax.local_device_count(),
        slowest_module=slowest.module if slowest else "",
        slowest_seconds=slowest.seconds * scale if slowest else 0.0,
    )
