"""`python -m tests.forks`: commands as `python -m` runs them, each in a fork, without the seconds that imports take.

A line on stdin is JSON of [module, flags, file for stdout, file for stderr]; the exit code is a line on stdout.
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

COMMON = ("cli", "perf.aot", "perf.profiling", "specimens.features", "specimens.systems", "training.evaluation")
COMMON += ("training.folds", "training.loop")
"""Modules that the commands import, without those that define flags. None starts threads or looks for devices."""


def _fork() -> tuple[str, list[str], str, str]:
    """The next command, in a process of its own."""
    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks, since it usually has threads
            child = os.fork()
        if not child:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def _run(module: str, arguments: list[str]) -> int:
    """The exit code of `python -m module arguments`."""
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
    command, flags, *outputs = _fork()
    for number, path in enumerate((os.devnull, *outputs)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    code = _run(command, flags)
    # As the interpreter ends, except that it does not tear down all modules, which takes longer than most commands.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
