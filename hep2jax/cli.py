"""What all commands share: flags of an experiment, settings of the runtime, errors as one line and an exit code."""

import ctypes
import difflib
import importlib.metadata
import importlib.util
import logging as python_logging
import os
import pathlib
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

import cv2
import jax
from absl import app, flags, logging
from ml_collections import config_flags

from hep2jax import config as configs
from hep2jax import config_files, files, progress, stopping, tasks
from hep2jax.errors import RunError, UsageError


class _ConfigParser(flags.ArgumentParser):
    """Accepts names of shipped configurations as well as paths; the parser of ml_collections accepts only paths."""

    def parse(self, argument: str) -> configs.Config:
        return config_files.load(argument)


def define_experiment_flags() -> None:
    """Define `--config`, with `--config.<section>.<key>` for every key, and `--workdir`."""
    config_flags.DEFINE_config_file("config", None, "The experiment: FILE or FILE:VARIANT of configs/, or its name.")
    flags.FLAGS["config"].parser = _ConfigParser()
    flags.DEFINE_string(
        "workdir", None, "Work directory of the run, also gs://… or s3://…; default: runs/FILE or runs/FILE-VARIANT."
    )


def experiment() -> tuple[configs.Config, str]:
    """The validated configuration, and the work directory that the flags name (see `remote.opened`)."""
    holder = flags.FLAGS["config"]
    if holder.value is None:
        raise UsageError("--config is missing: name a file of configs/, such as --config=configs/fcn.py")
    directory = flags.FLAGS.workdir or f"runs/{config_files.run_name(config_flags.get_config_filename(holder))}"
    return tasks.resolve(holder.value), directory


def prepare_runtime() -> None:
    """Set up quiet libraries, one OpenCV thread, a persistent compilation cache and, on CPUs, the memory allocator.

    OpenCV gets no threads of its own, because it runs on the thread of the input pipeline.
    """
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("hep2jax: %(message)s"))
    # Orbax and the event loop that it uses log the full stack trace of every exception; the exception is enough.
    for source in (logging.get_absl_logger(), logging.get_absl_handler()):
        source.addFilter(lambda record: "orbax" not in record.pathname and record.name != "asyncio")
    _ignore_reads_left_over()
    cv2.setNumThreads(1)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "hep2jax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # the default would skip our small programs
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if platforms and "cpu" not in platforms.split(","):
        jax.config.update("jax_platforms", f"{platforms},cpu")  # `model_flops` counts on the CPU
    if _computes_on_cpu():
        _keep_memory()


def _ignore_reads_left_over() -> None:
    """After the first error of a damaged checkpoint Orbax leaves its other reads behind, with errors of their own.

    Python would write a stack for each of them to stderr, at any later time.
    """
    report = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        frames = traceback.extract_tb(unraisable.exc_traceback)
        files_of_frames = [frame.filename for frame in frames]
        if code := getattr(unraisable.object, "cr_code", None):
            files_of_frames.append(code.co_filename)
        if not any(library in name for name in files_of_frames for library in ("orbax", "uvloop")):
            report(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)


def _computes_on_cpu() -> bool:
    """Whether JAX will compute on the CPU, judged without initialising its devices.

    Devices must not be initialised here, because `jax.distributed.initialize` has to come first.
    """
    if platforms := jax.config.jax_platforms:  # pyright: ignore[reportAttributeAccessIssue]
        return platforms.split(",")[0] == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None


def _keep_memory() -> None:
    """Make glibc keep freed memory in the process. This has no effect after JAX has started its threads.

    XLA on CPU allocates its buffers anew for every step. glibc returns those above 32 MB to the system, which then
    supplies zeroed pages one by one: 23,000 page faults and 183 ms on one core for a step of `fcn`, against 700 page
    faults and 140 ms with these settings. There is a single arena, because the others are small and fall back on memory
    that is returned to the system. It makes dispatching a step, which allocates for every array, a third slower, so
    these settings are not for accelerators.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    options = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_ARENA_MAX": (-8, 1)}  # <malloc.h>
    for parameter, value in options.values():
        mallopt(parameter, value)


def return_memory() -> None:
    """Give the pages that glibc keeps without use back to the system.

    Without this, a process that keeps its memory and takes arrays of many sizes from several threads grows slowly:
    what is free lies in pieces that fit no array.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def run_app(entry: Callable[[Sequence[str]], None]) -> None:
    """Run a command.

    The exit code is 0 on success, 2 for wrong use, 75 if the command was asked to stop (`stopping.EXIT_CODE`), each
    with one line on stderr, and 1 otherwise.
    """
    if {"-h", "-help", "--help", "--helpshort"} & set(sys.argv[1:]):
        print(_help(entry.__module__))  # absl's help does not show the flags of this module, and exits with 1
        return
    stopping.install()
    try:
        app.run(lambda argv: _checked(entry, argv), flags_parser=lambda argv: _parse_flags(argv, entry.__module__))
    except UsageError as error:
        _fail(error, 2)
    except RunError as error:
        _fail(error, 1)
    except stopping.Stopped as stop:
        _fail(stop, stopping.EXIT_CODE)


def _checked(entry: Callable[[Sequence[str]], None], argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise UsageError(f"unexpected argument '{argv[1]}': options are written --name=value")
    try:
        entry(argv)
    except (OSError, ValueError, RuntimeError) as error:
        reason = files.refusal(error)
        if reason is None:
            raise
        text = " ".join(str(error).split())[:300]
        raise RunError(f"{reason}, then run the same command again ({text})") from error


def _parse_flags(argv: list[str], command: str) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, ValueError, TypeError, FileNotFoundError) as error:
        raise UsageError(_explain(argv, error, command)) from error


def _own_flags(command: str) -> list[flags.Flag]:
    """The flags that the command's module and this module define, without those of libraries."""
    modules = (sys.argv[0] if command == "__main__" else command, __name__)  # absl names the main module by its file
    return [flag for module in modules for flag in flags.FLAGS.get_key_flags_for_module(module)]


def _help(command: str) -> str:
    """The docstring of the command's module, its flags and, if it has `--config`, every key with its default."""
    lines = [(sys.modules[command].__doc__ or "").strip(), ""]
    for flag in _own_flags(command):
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines += [f"  --{flag.name}", f"        {' '.join((flag.help or '').split())}{default}"]
    if "config" in flags.FLAGS:
        lines += [f"  --config.{key.name}={key.value}" for key in configs.keys(configs.Config())]
        lines += [
            "",
            "The values shown are defaults; the files of configs/ change some. hep2jax/config.py explains the keys.",
        ]
    return "\n".join(lines)


def _explain(argv: Sequence[str], error: Exception, command: str) -> str:
    """One line for a flag that could not be parsed; for an unknown flag, it names the nearest valid one."""
    valid = configs.valid_keys()
    for argument in argv:
        key = argument.lstrip("-").split("=")[0]
        if key.startswith("config.") and key.removeprefix("config.") not in valid:
            unknown = key.removeprefix("config.")
            return f"unknown configuration key '{unknown}': did you mean '{configs.nearest_key(unknown)}'?"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"Unknown command line flag '{error.flagname}': {_suggestion(error.flagname, command)}"
    return " ".join(str(error).split())


def _suggestion(unknown: str, command: str) -> str:
    """Advice that names the command's most similar flag or key, if there is one."""
    keys = configs.valid_keys() if "config" in flags.FLAGS else []
    known = {name: f"config.{key}" for key in keys for name in (key.rpartition(".")[2], key)}
    known |= {flag.name: flag.name for flag in _own_flags(command)}
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    return f"did you mean --{known[near[0]]}?" if near else "--help lists all flags"


def _fail(error: BaseException, code: int) -> None:
    progress.warn(" ".join(str(error).split()))
    sys.exit(code)
