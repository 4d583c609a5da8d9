"""Two processes with a network link of their own between them, and what happens when it is cut. Needs root, `ip`."""

import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.end_to_end.test_many_processes import GONE

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADDRESSES = ("10.77.0.1", "10.77.0.2")
HOSTS = ("hep2jax0", "hep2jax1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and ip"),
]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def link():
    """Two network namespaces, joined by a pair of virtual cables; `link(False)` pulls the cable, `link(True)` plugs."""
    names = [pathlib.Path("/etc/netns", host) for host in HOSTS]
    try:
        for host, address, folder in zip(HOSTS, ADDRESSES, names, strict=True):
            _ip("netns", "add", host)
            folder.mkdir(parents=True)  # what `ip netns exec` shows as /etc/hosts, where Gloo looks for its own address
            (folder / "hosts").write_text(f"{address} {socket.gethostname()}\n127.0.0.1 localhost\n")
        _ip("link", "add", "cable0", "netns", HOSTS[0], "type", "veth", "peer", "name", "cable1", "netns", HOSTS[1])
        for number, (host, address) in enumerate(zip(HOSTS, ADDRESSES, strict=True)):
            _ip("-n", host, "addr", "add", f"{address}/24", "dev", f"cable{number}")
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "link", "set", f"cable{number}", "up")
        yield lambda there: _ip("-n", HOSTS[0], "link", "set", "cable0", "up" if there else "down")
    finally:
        for host, folder in zip(HOSTS, names, strict=True):
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run(link, cell_flags, compilation_cache, tmp_path):
    """Two processes that train over the link: `run(steps)`, which waits for step 20."""
    started = []
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compilation_cache), "JAX_NUM_CPU_DEVICES": "1"}
    pipes = {"cwd": ROOT, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def start(steps: int) -> list[subprocess.Popen]:
        flags = [*cell_flags, f"--config.train.num_steps={steps}", f"--workdir={tmp_path / 'w'}"]
        flags += [f"--coordinator={ADDRESSES[0]}:9999", "--num_processes=2"]
        for number, host in enumerate(HOSTS):
            line = ["ip", "netns", "exec", host, sys.executable, "-m", "hep2jax.main", *flags, f"--process_id={number}"]
            started.append(subprocess.Popen(line, **pipes))
        for line in started[0].stdout:
            if line.startswith("step 20/"):
                return started
        raise AssertionError(started[0].stderr.read())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_training_over_the_link(run):
    for process in run(40):
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")


def test_a_link_that_is_cut_for_ten_seconds_does_no_harm(run, link):
    processes = run(1_000_000)
    link(False)
    time.sleep(10)
    link(True)
    lines = list(itertools.islice(processes[0].stdout, 100))  # more than can have waited in the pipe
    assert lines[-1].startswith("step 2")
    assert [process.poll() for process in processes] == [None, None]


@pytest.mark.parametrize("seconds", [30, 120], ids=["30 s", "for good"])
def test_a_link_that_is_cut_for_longer_ends_both(seconds: int, run, link):
    processes = run(1_000_000)
    link(False)
    start = time.monotonic()
    while time.monotonic() - start < seconds and any(process.poll() is None for process in processes):
        time.sleep(0.1)
    link(True)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert len(errors.splitlines()) == 1
        assert GONE in errors
    assert time.monotonic() - start < 60
