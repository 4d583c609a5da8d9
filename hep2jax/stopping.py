"""Requests to stop: SIGTERM, which clusters send before they take a machine away, and SIGINT (Ctrl-C).

A command answers both alike. It saves what it has, says so in one line and leaves with exit code 75. A second request
ends it at once. Whether a request came is asked at points where all is in order (`check`), such as between two
batches; where nothing can be lost, `Stopped` is raised at once, because such work may last long.

Several processes stop together: JAX passes the SIGTERM of any of them on to all, which agree on the same point.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""EX_TEMPFAIL of <sysexits.h>: the same command, started again, continues."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """The command was asked to stop. `note` says what was saved and how to continue."""

    def __init__(self) -> None:
        super().__init__()
        self.note = "what was finished before is kept; the same command continues"
        _Requests.answered = True

    def __str__(self) -> str:
        return f"asked to stop ({_Requests.name or 'preemption'}): {self.note}"


class _Requests:
    """The state of this process."""

    name = ""
    """The signal that was received."""
    answered = False
    """Whether `Stopped` was raised, so that what is done on the way out is not interrupted again."""
    deferrals = 0
    checks = 0


def install() -> None:
    """Let this process answer the signals. It must be called on the main thread."""
    for number in _SIGNALS:
        signal.signal(number, _receive)


def _receive(number: int, frame: FrameType | None) -> None:
    del frame
    if _Requests.name:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _Requests.name = signal.Signals(number).name
    if _is_shared():
        os.kill(os.getpid(), signal.SIGTERM)  # now JAX's own handler receives it, and tells the other processes
    elif not _Requests.deferrals:
        raise Stopped


def _is_shared() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """In this block, requests take effect only at a `check`, and at the end of the block."""
    _Requests.deferrals += 1
    try:
        yield
    finally:
        _Requests.deferrals -= 1
    if _Requests.name and not (_Requests.answered or _Requests.deferrals or _is_shared()):
        raise Stopped


def requested() -> bool:
    """Whether to stop here. All processes must ask equally often, and get the same answer."""
    if not _is_shared():
        return bool(_Requests.name)
    _Requests.checks += 1
    return multihost_utils.reached_preemption_sync_point(_Requests.checks)


def check() -> None:
    """Raise `Stopped` if the command was asked to stop. All processes must call this equally often."""
    if requested():
        raise Stopped
