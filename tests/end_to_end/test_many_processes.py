"""Processes that join over loopback, and how they end together: with one line each, and without waiting for ever."""

import os
import signal
import socket
import subprocess
import time

import pytest

from hep2jax import distributed
from hep2jax.errors import UsageError

GONE = "another process is gone, or its host cannot be reached; start the same command again on every process"
CONFIG = ("--config=configs/cnn.py", "--config.data.builder_config=specimens_tiny")


def _only_line(done: subprocess.CompletedProcess) -> str:
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("hep2jax: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_processes": 2}, "--num_processes: needs --coordinator=HOST:PORT"),
        ({"process_id": 1}, "--process_id: needs --coordinator=HOST:PORT"),
        ({"cluster": True, "num_processes": 2}, "--num_processes: needs --coordinator=HOST:PORT"),
        ({"cluster": True, "coordinator": "host:1"}, "--distributed and --coordinator: take one of them"),
        ({"coordinator": "host:1", "num_processes": 2}, "--coordinator=host:1: needs --process_id as well"),
        ({"coordinator": "host:1", "process_id": 0}, "--coordinator=host:1: needs --num_processes as well"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator": "host:http", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator": "host:65536", "num_processes": 2, "process_id": 0}, "a port from 1 to 65535"),
        ({"coordinator": ":1", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator": "host:1", "num_processes": 0, "process_id": 0}, "--num_processes=0: must be at least 1"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, "--process_id=2: must be from 0 to 1"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": -1}, "--process_id=-1: must be from 0 to 1"),
    ],
)
def test_flags_that_name_no_processes(given: dict, message: str):
    flags = {"cluster": False, "coordinator": None, "num_processes": None, "process_id": None}
    with pytest.raises(UsageError) as refused:
        distributed.parse(**flags | given)
    assert message in str(refused.value)


def test_flags_that_name_processes():
    flags = {"coordinator": None, "num_processes": None, "process_id": None}
    assert distributed.parse(cluster=False, **flags) is None
    assert distributed.parse(cluster=True, **flags) == distributed.Processes()
    known = {"coordinator": "[::1]:80", "num_processes": 2, "process_id": 1}
    assert distributed.parse(cluster=False, **known) == distributed.Processes(**known)


@pytest.mark.parametrize("flag", ["--num_processes=2", "--distributed"])
def test_a_process_does_not_train_alone_unasked(flag: str, command, cell_flags, tmp_path):
    done = command("hep2jax.main", *cell_flags, flag, f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 2
    assert flag.split("=")[0] in _only_line(done)
    assert not (tmp_path / "w").exists()


def test_a_host_that_is_missing(forks, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    addresses = [f"127.0.0.1:{free}", f"127.0.0.1:{free - 1}"]  # each of the two waits alone
    where = [[f"--coordinator={address}", "--num_processes=2", "--join_timeout=2"] for address in addresses]
    common = [*CONFIG, f"--workdir={tmp_path / 'w'}"]
    forks.start([("hep2jax.main", [*common, *where[i], f"--process_id={i}"], None) for i in range(2)])
    for number, done in enumerate(forks.wait()):
        assert done.stdout == f"process {number} of 2: waiting for the others at {addresses[number]}, for at most 2 s\n"
        assert done.returncode == 1
        assert f"the others did not all come to {addresses[number]} within --join_timeout=2 s" in _only_line(done)
    assert not (tmp_path / "w").exists()


def test_a_port_that_is_in_use(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        who = [f"--coordinator={address}", "--num_processes=2", "--process_id=0"]
        done = command("hep2jax.main", *CONFIG, *who, f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 2
    assert "process 0 cannot listen at port" in _only_line(done)


def test_processes_with_other_settings(together, tmp_path):
    flags = [*CONFIG, f"--workdir={tmp_path / 'w'}", "--config.seed={number}"]
    for done in together("tests.members", *flags, processes=2, devices=1):
        assert done.returncode == 2
        assert "process 1 was started with other settings than process 0: config.seed is 1 there and 0" in done.stderr
        _only_line(done)
    assert not (tmp_path / "w").exists()


def test_a_work_directory_that_process_1_does_not_see(together, tmp_path):
    for done in together("tests.members", *CONFIG, f"--workdir={tmp_path}/{{number}}/w", processes=2, devices=1):
        assert done.returncode == 2
        assert f"process 1 on {socket.gethostname()} does not see the work directory of process 0" in _only_line(done)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_in_a_work_directory_that_all_see(together, tmp_path):
    (tmp_path / "w").mkdir()
    for done in together("tests.members", *CONFIG, f"--workdir={tmp_path / 'w'}", processes=2, devices=1):
        assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "w").iterdir())


def test_processes_with_different_examples(together, tmp_path):
    flags = [*CONFIG, f"--workdir={tmp_path / 'w'}", "--deed=data", "--actor=1"]
    for done in together("tests.members", *flags, processes=2, devices=1):
        assert done.returncode == 2
        assert _only_line(done).startswith("process 1 has other examples than process 0; prepare the same data set")


@pytest.mark.parametrize("actor", [0, 1])
def test_an_error_of_one_process_ends_the_others(actor: int, together, tmp_path):
    flags = [*CONFIG, f"--workdir={tmp_path / 'w'}", f"--actor={actor}", "--deed=misuse", "--sleep=60"]
    start = time.monotonic()
    done = together("tests.members", *flags, processes=2, devices=1)
    assert time.monotonic() - start < 30
    assert [process.returncode for process in done] == [2, 2]
    assert _only_line(done[actor]) == "there is no such thing"
    assert _only_line(done[1 - actor]) == f"process {actor} of 2 ended: there is no such thing"


def test_a_bug_of_one_process_ends_the_others(together, tmp_path):
    flags = [*CONFIG, f"--workdir={tmp_path / 'w'}", "--deed=bug", "--sleep=60"]
    done = together("tests.members", *flags, processes=2, devices=1)
    assert [process.returncode for process in done] == [1, 1]
    assert done[0].stderr.splitlines()[-1] == "KeyError: 'a bug'"
    assert _only_line(done[1]) == "process 0 of 2 ended: KeyError: 'a bug'"


def _kill(together, pids: list[int], victim: int, said: str) -> subprocess.CompletedProcess:
    """Kill a process once it has said something; what came of the other, which has to end within a minute."""
    while said not in together.said(victim) or said not in together.said(0):
        time.sleep(0.05)
    os.kill(pids[victim], signal.SIGKILL)
    start = time.monotonic()
    done = together.wait()
    assert time.monotonic() - start < 60
    assert done[victim].returncode == -signal.SIGKILL
    return done[1 - victim]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])  # noticed only after 45 s
def test_a_process_that_is_killed_while_the_other_is_busy(victim: int, together, tmp_path):
    flags = [*CONFIG, f"--workdir={tmp_path / 'w'}", "--sleep=100"]
    pids = together.start("tests.members", *flags, processes=2, devices=1)
    survivor = _kill(together, pids, victim, "joined")
    assert survivor.returncode == 1
    assert _only_line(survivor).startswith(f"process {1 - victim} of 2: {GONE}")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_in_training(victim: int, devices: int, together, cell_flags, tmp_path):
    flags = [*cell_flags, f"--workdir={tmp_path / 'w'}", "--config.train.num_steps=100000"]
    pids = together.start("hep2jax.main", *flags, processes=2, devices=devices)
    while "step 20/" not in together.said(0):
        time.sleep(0.05)
    survivor = _kill(together, pids, victim, "")
    assert survivor.returncode == 1
    assert _only_line(survivor).startswith(f"process {1 - victim} of 2: {GONE}")
