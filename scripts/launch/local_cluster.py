"""Runs `hep2jax.main` in several processes of this machine, each with some virtual CPU devices.

python -m scripts.launch.local_cluster --processes=2 --devices=2 -- --config=configs/fcn.py --workdir=runs/two

Each line of output names its process. SIGTERM and SIGINT are passed on to every process. The exit code is the highest
of theirs.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, NoReturn


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"hep2jax: {message}; --help shows an example", file=sys.stderr)
        sys.exit(2)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many processes (default: 2)")
    parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices of each process (default: 1)")
    parser.add_argument("flags", nargs="*", help="flags of hep2jax.main, behind --")
    options = parser.parse_args(arguments)
    if options.processes < 1 or options.devices < 1:
        parser.error("--processes and --devices must be at least 1")
    return options


def start(processes: int, devices: int, flags: Sequence[str]) -> list[subprocess.Popen]:
    """Start the processes, which find each other at a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "hep2jax.main", *flags, f"--coordinator={address}", f"--num_processes={processes}"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    # In sessions of their own, so that Ctrl-C reaches each of them once, from here.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return [subprocess.Popen([*command, f"--process_id={number}"], env=env, **pipes) for number in range(processes)]


def _pass_on(source: IO[str], target: IO[str], number: int) -> None:
    for line in source:
        target.write(f"[{number}] {line}")
        target.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the processes to their end; the exit code."""
    options = _parse(arguments)
    children = start(options.processes, options.devices, options.flags)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: [child.send_signal(received) for child in children])
    outputs = [
        threading.Thread(target=_pass_on, args=(source, target, number))
        for number, child in enumerate(children)
        for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    ]
    for thread in outputs:
        thread.start()
    codes = [child.wait() for child in children]
    for thread in outputs:
        thread.join()
    return max(128 - code if code < 0 else code for code in codes)  # as a shell counts a process that was killed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
