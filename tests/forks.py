"""`python -m tests.forks`: commands as `python -m` runs them, each in a fork, without the seconds that imports take.

A line on stdin is JSON of [module, flags, file for stdout, file for stderr]; the exit code is a line on stdout.
"""

import json
import os
import runpy
import sys
import warnings

# What the commands import, except modules that define flags. None of it starts threads or looks for devices.
import tests.scattered  # noqa: F401
from hep2jax.specimens import features, systems  # noqa: F401


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


if __name__ == "__main__":
    module, arguments, *outputs = _fork()
    for number, path in enumerate((os.devnull, *outputs)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.modules.pop(module, None)  # another command may have been imported from it; `runpy` would warn
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
