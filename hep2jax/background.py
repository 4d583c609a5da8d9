"""Threads that work beside the computation: they take the time that it leaves, and what they make keeps its order."""

import collections
import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Taken = TypeVar("Taken")
Made = TypeVar("Made")

_NICENESS = 10


def step_back() -> None:
    """Lower the priority of the calling thread; only Linux has priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def thread() -> concurrent.futures.ThreadPoolExecutor:
    """One thread of low priority for work that is submitted to it."""
    return concurrent.futures.ThreadPoolExecutor(1, initializer=step_back)


def made(make: Callable[[Taken], Made], items: Iterable[Taken], *, ahead: int) -> Iterator[Made]:
    """What `make` makes of each item, in order, in a thread; up to `ahead` items are taken before they are needed."""
    with thread() as worker:
        waiting = collections.deque[concurrent.futures.Future[Made]]()
        for item in items:
            waiting.append(worker.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
