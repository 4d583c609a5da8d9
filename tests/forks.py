"""`python -m tests.forks`: commands as `python -m` runs them, each in a fork, without the seconds that imports take.

A line on stdin is JSON of a list of commands that run at the same time, each of them [module, flags, file for stdout,
file for stderr, number of devices or null]. Two lines on stdout answer: the ids of the processes, then the exit codes.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import threading
import traceback
import warnings

import jax

COMMON = ("cli", "perf.aot", "perf.profiling", "specimens.features", "specimens.systems", "training.evaluation")
COMMON += ("training.folds", "training.loop")
"""Modules that the commands import, without those that define flags. None starts threads or looks for devices."""


Command = tuple[str, list[str], str, str, int | None]


def _fork() -> Command:
    """The next command, in a process of its own."""
    for line in sys.stdin:
        children = []
        for command in json.loads(line):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # JAX warns of forks, since it usually has threads
                child = os.fork()
            if not child:
                return command
            children.append(child)
        print(json.dumps(children), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
    sys.exit()


def _run(module: str, arguments: list[str]) -> int:
    """The exit code of `python -m module arguments`."""
    sys.dont_write_bytecode = True  # `runpy` would keep what is compiled with checks where Python looks for it without
    sys.modules.pop(module, None)  # another command may have been imported from it; `runpy` would warn
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    for name in COMMON:
        importlib.import_module(f"hep2jax.{name}")
    gc.freeze()  # what is imported is shared by all forks, as long as nobody touches it
    command, flags, *outputs, devices = _fork()
    for number, path in enumerate((os.devnull, *outputs)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    if devices:
        jax.config.update("jax_num_cpu_devices", devices)
    code = _run(command, flags)
    # As the interpreter ends, except that it does not tear down all modules, which takes longer than most commands.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
