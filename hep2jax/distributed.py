"""The processes of a run: how they join, what they must have in common, and how they end together.

JAX's runtime joins them and notices when one is gone. It then aborts the process with the stack of its own code; here
it is made to say in one line what to do. A process that ends with an error tells the others, which would otherwise
wait for it.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import errno
import importlib
import itertools
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from hep2jax import config as configs
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.progress import say

HEARTBEAT_SECONDS = 45
"""A process that has not been heard of for so long is gone. A link that is cut for less time does no harm."""

_SHUTDOWN_SECONDS = 1800  # the others wait so long for process 0 to write its report
_FAREWELL_SECONDS = 5
_EXCHANGE_SECONDS = 600
_ENDED, _LEFT = "hep2jax/ended", "hep2jax/left"
_LOST_WORDS = ("gloo", "nccl", "connection reset", "connection closed", "coordination", "heartbeat", "socket closed")
"""In an error of the runtime: an operation over several processes failed, because one of them is gone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Who takes part: what the flags say. Fields are None where the cluster says it."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def parse(*, cluster: bool, coordinator: str | None, num_processes: int | None, process_id: int | None):
    """The processes that the flags describe; None for a run of one process.

    Raises:
        UsageError: the flags contradict each other, or a value is out of range.
    """
    numbers = {"num_processes": num_processes, "process_id": process_id}
    if coordinator is None:
        given = next((name for name, value in numbers.items() if value is not None), None)
        if given:
            raise UsageError(f"--{given}: needs --coordinator=HOST:PORT, the address of process 0")
        return Processes() if cluster else None
    if cluster:
        raise UsageError(
            "--distributed and --coordinator: take one of them; --distributed asks the cluster for all three"
        )
    missing = next((name for name, value in numbers.items() if value is None), None)
    if num_processes is None or process_id is None:
        raise UsageError(f"--coordinator={coordinator}: needs --{missing} as well")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--coordinator={coordinator}: must be HOST:PORT, with a port from 1 to 65535")
    if num_processes < 1:
        raise UsageError(f"--num_processes={num_processes}: must be at least 1")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process_id={process_id}: must be from 0 to {num_processes - 1} (--num_processes - 1)")
    return Processes(coordinator=coordinator, num_processes=num_processes, process_id=process_id)


@contextlib.contextmanager
def joined(processes: Processes | None, timeout: int) -> Iterator[None]:
    """In this block the processes belong together: none of them waits for one that is gone. `timeout` in seconds.

    Raises:
        UsageError: there is no cluster, or the coordinator cannot listen or refuses this process.
    """
    if processes is None:
        yield
        return
    with _one_line_at_the_end():
        _join(processes, timeout)
        watcher = _Watcher()
        try:
            yield
        except Exception as error:  # requests to stop are no Exceptions: all processes answer them together
            watcher.stop()
            _tell_the_others(error)
            raise
        finally:
            if not _State.last_word.locked():
                watcher.stop()
                _leave()


def check_alike(config: Config, mode: str, directory: pathlib.Path) -> None:
    """Make sure that all processes were started alike and see the same work directory.

    Raises:
        UsageError: on every process, if they do not.
    """
    if _runtime() is None or _client() is None:
        return
    settings = {"--mode": mode} | {f"config.{key.name}": repr(key.value) for key in configs.keys(config)}
    everyone = [json.loads(text) for text in _exchange("settings", json.dumps(settings))]
    for number, other in enumerate(everyone):
        for name, value in everyone[0].items():
            if other[name] != value:
                raise UsageError(
                    f"process {number} was started with other settings than process 0: {name} is {other[name]} there "
                    f"and {value} here; start the same command on every process"
                )
    _check_shared(directory)


_comparisons = itertools.count()  # those of all processes come in the same order


def check_same_data(digest: Callable[[], str]) -> None:
    """Make sure that all processes have loaded the same examples, which may lie on the disks of several hosts.

    Args:
        digest: returns what differs between different examples; only called if there are several processes.

    Raises:
        UsageError: on every process, if they have not.
    """
    if _runtime() is None or _client() is None:
        return
    everyone = _exchange(f"data-{next(_comparisons)}", digest())
    other = next((number for number, said in enumerate(everyone) if said != everyone[0]), None)
    if other is not None:
        raise UsageError(
            f"process {other} has other examples than process 0; prepare the same data set on every host, or copy it "
            "there (data.data_dir)"
        )


def _check_shared(directory: pathlib.Path) -> None:
    """Process 0 writes a file into the work directory, and all look for it."""
    with _token(directory) if _runtime().process_id == 0 else contextlib.nullcontext("") as name:
        name = _exchange("token", name)[0]
        hosts = _exchange("seen", "" if not name or _appears(directory / name) else socket.gethostname())
    missing = next((number for number, host in enumerate(hosts) if host), None)
    if missing is not None:
        raise UsageError(
            f"--workdir={directory}: process {missing} on {hosts[missing]} does not see the work directory of process "
            "0; name a folder on a disk that all processes share"
        )


@contextlib.contextmanager
def _token(directory: pathlib.Path) -> Iterator[str]:
    """The name of a file in the directory, both of which are gone afterwards unless the directory was there before.

    The name is empty if the file cannot be written: whoever opens the directory says that better.
    """
    path = directory / f".processes-{secrets.token_hex(8)}"
    new = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            path.touch()
        yield path.name if path.exists() else ""
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()


def _appears(path: pathlib.Path) -> bool:
    """Whether a file is there, or comes within the seconds for which a network file system remembers that it is not."""
    deadline = time.monotonic() + 5
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _exchange(topic: str, text: str) -> list[str]:
    """What every process says on a topic, in their order."""
    client, runtime = _client(), _runtime()
    client.key_value_set(f"hep2jax/{topic}/{runtime.process_id}", f"={text}")
    keys = [f"hep2jax/{topic}/{number}" for number in range(runtime.num_processes)]
    return [client.blocking_key_value_get(key, _EXCHANGE_SECONDS * 1000).removeprefix("=") for key in keys]


# --- Joining


def _join(processes: Processes, timeout: int) -> None:
    attempt = _Attempt(processes, timeout)
    thread = threading.Thread(target=attempt.run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():  # this thread stays free to answer signals, which it could not inside the runtime
            thread.join(0.1)
    except BaseException:
        _abandon()
        raise
    if attempt.error is not None:
        attempt.explain()


class _Attempt:
    """One try of a process to join the others."""

    def __init__(self, processes: Processes, timeout: int) -> None:
        self._processes, self._timeout = processes, timeout
        self._address, self._name = processes.coordinator, "this process"
        self._start = time.monotonic()
        self.error: Exception | None = None

    def run(self) -> None:
        given = dataclasses.astuple(self._processes)
        try:
            with _patched(self._announce):
                jax.distributed.initialize(
                    *given,
                    cluster_detection_method="deactivate" if self._processes.coordinator else None,
                    initialization_timeout=self._timeout,
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                    shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
                )
            _State.name, _State.is_joined = self._name, True
        except Exception as error:
            self.error = error

    def _announce(self, address: str, number: int, count: int) -> None:
        self._address, self._name = address, f"process {number} of {count}"
        self._start = time.monotonic()
        say(f"{self._name}: waiting for the others at {address}, for at most {self._timeout} s")

    def explain(self) -> NoReturn:
        """End this process, or raise the UsageError that says why it could not join."""
        if isinstance(self.error, UsageError):
            raise self.error
        if self._address is None:
            reason = " ".join(str(self.error).split())[:200]
            raise UsageError(
                "--distributed: no cluster says who takes part (Cloud TPU, GKE, Slurm, Open MPI); name the processes "
                f"with --coordinator, --num_processes and --process_id ({reason})"
            ) from self.error
        if time.monotonic() - self._start < self._timeout:
            _end(
                f"{self._name}: the coordinator at {self._address} refused this process; every process needs the same "
                "--num_processes and a --process_id of its own",
                code=2,
            )
        _end(
            f"{self._name}: the others did not all come to {self._address} within --join_timeout={self._timeout} s; "
            "start the same command on every process, and make sure that every host reaches that address"
        )


# --- The end


class _State:
    """Of this process."""

    name = "this process"
    is_joined = False
    last_word = threading.Lock()
    """Whoever takes it ends this process, and is the only one to say why."""
    has_spoken = threading.Event()
    exit_code = 1
    kept: tuple[Any, ...] = ()
    """What C++ still uses."""


def _end(line: str, code: int = 1, before: Callable[[], None] = lambda: None) -> NoReturn:
    """Say one line and end this process at once: the runtime's own end would wait for processes that are gone."""
    if not _State.last_word.acquire(blocking=False):
        _State.has_spoken.wait(2 * _FAREWELL_SECONDS)
        os._exit(_State.exit_code)
    _State.exit_code = code
    os.write(2, f"hep2jax: {line}\n".encode())
    _State.has_spoken.set()
    before()
    os._exit(code)


def _lost(*status: Any) -> None:
    """Another process is gone."""
    del status
    if _State.is_joined:
        _end(
            f"{_State.name}: another process is gone, or its host cannot be reached; start the same command again on "
            "every process, and the run goes on from its last checkpoint"
        )


def _tell_the_others(error: Exception) -> None:
    """Let the other processes end too, and this one without waiting for them, once it has said why it ends."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, RuntimeError | ValueError) and any(words in text.lower() for words in _LOST_WORDS):
        _lost()
    _State.last_word.acquire()
    _State.exit_code = 2 if isinstance(error, UsageError) else 1
    reason = str(error) if isinstance(error, UsageError) else text
    notice = {"code": _State.exit_code, "line": f"{_State.name} ended: {' '.join(reason.split())[:500]}"}
    with contextlib.suppress(Exception):  # another process may have told before
        _client().key_value_set(_ENDED, json.dumps(notice))
    atexit.register(_part)
    deadline = threading.Timer(2 * _FAREWELL_SECONDS, os._exit, [_State.exit_code])  # if another thread does not end
    deadline.daemon = True
    deadline.start()


def _part() -> None:
    """Wait until the others have heard, which they do from process 0, and end."""
    sys.stdout.flush()
    sys.stderr.flush()
    _State.has_spoken.set()
    _wait_for_all_to_hear()
    os._exit(_State.exit_code)


def _wait_for_all_to_hear() -> None:
    with contextlib.suppress(Exception):
        _client().wait_at_barrier(_LEFT, _FAREWELL_SECONDS * 1000)


class _Watcher:
    """A thread that ends this process when another one says that it ended with an error."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(1):
            with contextlib.suppress(RuntimeError):  # nobody has said so
                notice = json.loads(_client().key_value_try_get(_ENDED))
                _end(notice["line"], notice["code"], before=_wait_for_all_to_hear)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def _leave() -> None:
    """Wait for all processes to finish, then release the runtime."""
    try:
        jax.distributed.shutdown()
    except RuntimeError:
        _lost()
    _State.is_joined = False


# --- What jax has no public name for


def _runtime() -> Any:
    """JAX's record of the processes: `client`, `process_id`, `num_processes`. None if this version has none there."""
    try:
        from jax._src import distributed
    except ImportError:
        return None
    return getattr(distributed, "global_state", None)


def _client() -> Any:
    """The client of the coordinator, with its key-value store and barriers; None if nobody has joined."""
    return getattr(_runtime(), "client", None)


def _abandon() -> None:
    """Keep JAX from waiting, at its exit, for processes that this one has not joined yet."""
    if runtime := _runtime():
        _State.kept += (runtime.client, runtime.service)
        runtime.client = runtime.service = None


@contextlib.contextmanager
def _patched(announce: Callable[[str, int, int], None]) -> Iterator[None]:
    """In this block JAX makes clients that call `_lost` when a process is gone. By default they abort the process.

    `jax.distributed.initialize` does not take the callback that its client takes. A version of JAX that is built
    differently joins without it, and ends with a stack.
    """
    try:
        from jax._src import distributed

        runtime: Any = distributed._jax
        make_client, make_service = runtime.get_distributed_runtime_client, runtime.get_distributed_runtime_service
    except (ImportError, AttributeError):
        yield
        return

    def service(address: str, *arguments: Any, **options: Any) -> Any:
        _check_free(address)
        return make_service(address, *arguments, **options)

    def client(address: str, number: int, **options: Any) -> Any:
        announce(address, number, distributed.global_state.num_processes)
        if "missed_heartbeat_callback" in (make_client.__doc__ or ""):
            options["missed_heartbeat_callback"] = _lost
        return make_client(address, number, **options)

    runtime.get_distributed_runtime_client, runtime.get_distributed_runtime_service = client, service
    try:
        yield
    finally:
        runtime.get_distributed_runtime_client, runtime.get_distributed_runtime_service = make_client, make_service


def _check_free(address: str) -> None:
    """Raise UsageError if this host cannot listen at `HOST:PORT`, where the runtime would crash (seen in 0.10.2).

    It would even listen beside another run.
    """
    host, _, port = address.rpartition(":")
    host, both = host.strip("[]"), ":" in host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, int(port)), family=family, dualstack_ipv6=both):
            pass
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # such as a host without IPv6, which the runtime copes with
            return
        raise UsageError(
            f"process 0 cannot listen at port {port}, which another program of its host uses; name another port in "
            "--coordinator on every process"
        ) from error


@contextlib.contextmanager
def _one_line_at_the_end() -> Iterator[None]:
    """In this block `_lost` has the last word where the runtime would speak.

    jaxlib cannot convert the argument of the callback (seen in 0.10.2): it throws std::bad_cast on a thread of its own,
    and C++ calls the terminate handler. This one calls `_lost` for that exception only. The runtime's log of errors is
    off as well, unless TF_CPP_MIN_LOG_LEVEL asks for it: what fails is raised too.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX's own default
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module("jaxlib.utils").absl_set_min_log_level(3)
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_terminate, thrown = library["_ZSt13set_terminatePFvvE"], library["__cxa_current_exception_type"]
    except (OSError, AttributeError):  # another C++ library
        yield
        return
    set_terminate.restype = thrown.restype = ctypes.c_void_p
    set_terminate.argtypes = [ctypes.c_void_p]

    def end() -> None:
        name_of_type = ctypes.sizeof(ctypes.c_void_p)  # behind the table of virtual functions of std::type_info
        exception = thrown()
        if exception and ctypes.c_char_p.from_address(exception + name_of_type).value == b"St8bad_cast":
            _lost()
        ctypes.CFUNCTYPE(None)(previous)()

    handler = ctypes.CFUNCTYPE(None)(end)
    _State.kept = (handler,)
    previous = set_terminate(ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        if not _State.is_joined:
            set_terminate(previous)
