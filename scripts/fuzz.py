"""Tries many damaged files on every reader of files that others wrote, and prints a tally.

Usage: python -m scripts.fuzz [--inputs=10000] [--reader=NAME ...] [--seed=0] [--keep=DIR]

A finding is an exception other than the reader's own, a message of several lines, text on stderr, a process that ends,
more than 5 s, or more than 1 GiB beyond what the process holds already. Files that led to findings are kept in the
folder. The readers and the ways of damage are in tests/fuzzing.py. The exit code is 1 if there is a finding.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection

from tests import fuzzing

SECONDS, BYTES = 5.0, 2**30


def _serve(name: str, channel: Connection) -> None:
    """Read file after file; answer with the kind of finding, empty if there is none, and its description."""
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryFile() as printed:
        reader = fuzzing.readers(pathlib.Path(root))[name]
        os.dup2(printed.fileno(), 2)
        while True:
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            data = channel.recv_bytes()
            with tempfile.TemporaryDirectory(dir=root) as folder:
                pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
                before = _kilobytes("VmRSS")
                try:
                    message = reader.try_on(data, pathlib.Path(folder))
                    finding = ("several lines", message[:200]) if "\n" in message else ("", message)
                except BaseException as error:
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    finding = (
                        "exception",
                        f"{type(error).__name__} {str(error)[:120]} ({place.filename}:{place.lineno})",
                    )
                if size := os.fstat(2).st_size:
                    finding = ("text on stderr", os.pread(2, min(size, 300), 0).decode(errors="replace").strip())
                if (_kilobytes("VmHWM") - before) * 1024 > BYTES:
                    finding = ("memory", f"{(_kilobytes('VmHWM') - before) >> 10} MiB")
            channel.send(finding)


def _kilobytes(key: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


class Worker:
    """The process that reads; it is started again when it ends or hangs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._name, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._channel.send_bytes(b"")  # wait until it has started; an empty file is an input as well
        self._channel.recv()

    def try_on(self, data: bytes) -> tuple[str, str]:
        """The kind of finding, and its description."""
        try:
            self._channel.send_bytes(data)
            if self._channel.poll(SECONDS):
                return self._channel.recv()
            finding = ("hang", f"more than {SECONDS:g} s")
        except (EOFError, OSError):
            self._process.join()
            finding = ("crash", f"the process ended with {self._process.exitcode}")
        self.close()
        self._start()
        return finding

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def fuzz(name: str, inputs: int, start: int, keep: pathlib.Path) -> int:
    """Try the inputs on one reader, and print its line of the tally; returns the number of findings."""
    with tempfile.TemporaryDirectory() as root:
        reader = fuzzing.readers(pathlib.Path(root))[name]
    worker, tally, shown, began = Worker(name), collections.Counter[str](), set[str](), time.monotonic()

    def attempt(data: bytes) -> None:
        kind, description = worker.try_on(data)
        tally[kind or ("refused" if description else "read")] += 1
        if kind and description not in shown:
            shown.add(description)
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / f"{name.replace(' ', '-')}-{len(shown)}"
            path.write_bytes(data)
            print(f"  {name}: {kind}: {description}: {path}", flush=True)

    fuzzing.try_damaged(reader, attempt, inputs, start)
    worker.close()
    findings = sum(count for kind, count in tally.items() if kind not in ("read", "refused"))
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.items()))
    print(f"{name}: {sum(tally.values())} inputs in {time.monotonic() - began:.0f} s: {counts}", flush=True)
    return findings


def main() -> None:
    """Try every reader, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--reader", action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path("fuzz"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        names = options.reader or list(fuzzing.readers(pathlib.Path(root)))
    sys.exit(1 if sum(fuzz(name, options.inputs, options.seed, options.keep) for name in names) else 0)


if __name__ == "__main__":
    main()
