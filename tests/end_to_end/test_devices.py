"""The same run on 1, 2, 4 and 8 virtual devices, on one process or several, whatever the order of the devices."""

import functools
import json
import shutil
import socket
from collections.abc import Callable

import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax.training import restoring
from hep2jax.training import state as states
from tests import processes

STEPS = 20
SAID = {"cells": "probabilities", "bags": "logits", "labels": "logits"}
"""By kind of network, what a record holds of its output; `joint` has its mask's counts."""


def _losses(workdir) -> np.ndarray:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["split"] == "train"])


def _flags(tiny_flags, workdir) -> list[str]:
    return [
        *tiny_flags,
        "--config.train.log_every=1",
        f"--config.train.num_steps={STEPS}",
        f"--config.train.eval_every={STEPS}",
        "--config.data.validation_fraction=0.3",
        # Rounding differs between device counts, and a network amplifies it step by step at a high rate.
        "--config.optimizer.learning_rate=1e-4",
        f"--workdir={workdir}",
    ]


@pytest.fixture(scope="module")
def one_device(command, tiny_flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("devices") / "one"
    done = command("hep2jax.main", *_flags(tiny_flags, workdir), env={"JAX_NUM_CPU_DEVICES": "1"})
    assert done.returncode == 0, done.stderr
    return workdir


def _assert_same_run(workdir, other) -> None:
    assert len(_losses(workdir)) == STEPS
    np.testing.assert_allclose(_losses(workdir), _losses(other), rtol=2e-5)
    figures = [json.loads((w / "report" / "metrics.json").read_text()) for w in (workdir, other)]
    assert set(figures[0]) == {"validation", "test"}
    for side in figures[0]:
        for name in ("Dice", "JA", "AC", "SEG"):
            assert figures[0][side]["pixel"][name] == pytest.approx(figures[1][side]["pixel"][name], abs=2e-3)
    fields = [json.loads((w / "report" / "records.json").read_text())["splits"]["test"] for w in (workdir, other)]
    votes = [np.array([field["votes"] for field in side]) for side in fields]
    np.testing.assert_allclose(*votes, atol=20)
    assert np.ptp(votes[0], axis=0).max() > 400, "fields of which the same is said could stand in any order"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_device_counts_give_the_same_losses(devices: int, one_device, command, tiny_flags, tmp_path):
    done = command("tests.scattered", *_flags(tiny_flags, tmp_path / "w"), env={"JAX_NUM_CPU_DEVICES": str(devices)})
    assert done.returncode == 0, done.stderr
    assert f"{devices} cpu device(s)" in done.stdout
    _assert_same_run(tmp_path / "w", one_device)


def test_a_batch_that_does_not_divide_is_refused(together, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--config.train.global_batch_size=6", f"--workdir={tmp_path / 'w'}"]
    (done,) = together("hep2jax.main", *flags, processes=1, devices=4)
    assert done.returncode == 2
    assert done.stderr.strip() == "hep2jax: train.global_batch_size=6: must be a multiple of the 4 devices; take 4 or 8"
    assert not (tmp_path / "w").exists()


def _run_pair(command, module: str, arguments: Callable[[str, int], list[str]]) -> list[tuple[str, str]]:
    """Output and errors of two processes with two devices each; `arguments` of (coordinator, number of the process)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    # Compiling takes longer than these short runs, in the slow lane too, so LLVM does not optimise.
    env = {"JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    pair = [command(module, *arguments(coordinator, number), env=env, start=True) for number in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in pair]
    finally:
        for process in pair:  # one waits for ever for the other if that has failed
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], outputs[0][1] + outputs[1][1]
    return outputs


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_figures(one_device, command, tiny_flags, tmp_path):
    def arguments(coordinator: str, number: int) -> list[str]:
        flags = _flags(tiny_flags, tmp_path / "w")
        return [*flags, f"--coordinator={coordinator}", "--num_processes=2", f"--process_id={number}"]

    outputs = _run_pair(command, "tests.scattered", arguments)
    assert "4 cpu device(s)" in outputs[0][0]
    assert "step" not in outputs[1][0]  # one process speaks
    _assert_same_run(tmp_path / "w", one_device)


@pytest.fixture(scope="module")
def cell_run(cell_flags):
    """Flags of a run of `STEPS` steps whose programs compile fastest."""
    rhythm = [f"--config.train.num_steps={STEPS}", "--config.train.log_every=1", f"--config.train.eval_every={STEPS}"]
    return [*cell_flags, *rhythm, "--config.data.validation_fraction=0.3", "--config.optimizer.learning_rate=1e-4"]


@pytest.fixture(scope="module")
def four_devices(together, cell_run, tmp_path_factory):
    """The work directory of a run in one process with four devices."""
    workdir = tmp_path_factory.mktemp("devices") / "four"
    done = together("hep2jax.main", *cell_run, f"--workdir={workdir}", processes=1, devices=4)
    assert done[0].returncode == 0, done[0].stderr
    return workdir


@pytest.mark.parametrize(
    ("module", "num_processes"),
    [
        ("tests.scattered", 2),
        pytest.param("tests.scattered", 4, marks=pytest.mark.slow),
        pytest.param("hep2jax.main", 4, marks=pytest.mark.slow),
        pytest.param("hep2jax.main", 2, marks=pytest.mark.slow),
    ],
)
def test_processes_share_four_devices(module: str, num_processes: int, four_devices, together, cell_run, tmp_path):
    devices = 4 // num_processes
    done = together(module, *cell_run, f"--workdir={tmp_path / 'w'}", processes=num_processes, devices=devices)
    for number, process in enumerate(done):
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        assert ("4 cpu device(s)" in process.stdout) == (number == 0)  # one process speaks
    assert len(_losses(four_devices)) == STEPS
    np.testing.assert_allclose(_losses(tmp_path / "w"), _losses(four_devices), rtol=1e-5)
    sides = [json.loads((w / "report" / "records.json").read_text())["splits"] for w in (tmp_path / "w", four_devices)]
    assert set(sides[0]) == {"validation", "test"}
    for side in sides[0]:
        said = [np.array([record["probabilities"] for record in records[side]]) for records in sides]
        np.testing.assert_allclose(*said, rtol=1e-4, atol=1e-5)
        assert np.ptp(said[0], axis=0).max() > 1e-4, "cells of which the same is said could stand in any order"
    figures = [json.loads((w / "report" / "metrics.json").read_text()) for w in (tmp_path / "w", four_devices)]
    np.testing.assert_allclose(_numbers(figures[0]), _numbers(figures[1]), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def restored(four_devices, together, cell_run, tmp_path_factory):
    """What is restored of the run on four devices, by processes and devices of each."""

    @functools.cache
    def restore(num_processes: int, devices: int) -> dict[str, np.ndarray]:
        workdir = tmp_path_factory.mktemp("elastic") / "w"
        shutil.copytree(four_devices, workdir)
        done = together("tests.elastic", *cell_run, f"--workdir={workdir}", processes=num_processes, devices=devices)
        assert [process.returncode for process in done] == [0] * num_processes, done[0].stderr
        return dict(np.load(workdir / "restored.npz"))

    return restore


@pytest.mark.parametrize(
    ("num_processes", "devices"),
    [
        (1, 8),
        (2, 1),
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_four_devices_goes_on_anywhere(num_processes: int, devices: int, four_devices, restored):
    there, here = restored(num_processes, devices), restored(1, 4)
    assert there.pop("devices") == num_processes * devices
    assert set(there) == set(here) - {"devices"}
    for name, value in there.items():
        np.testing.assert_array_equal(value, here[name], err_msg=name)
    lines = (four_devices / "metrics.jsonl").read_text().splitlines()
    assert str(there["digest"]) == json.loads(lines[-1])["params_digest"]
    assert there["step"] == STEPS


@pytest.fixture(scope="module")
def alone_and_together(command, tmp_path_factory):
    """The folders of `processes.run` on one device and on two processes.

    The default lane compares losses, probabilities and metrics instead (`test_processes_share_four_devices`).
    """
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    what = [str(together), ",".join(processes.KINDS)]
    _run_pair(command, "tests.processes", lambda coordinator, number: [*what, coordinator, "2", str(number)])
    processes.run(alone, list(processes.KINDS))
    return alone, together


@pytest.mark.slow
@pytest.mark.parametrize("kind", processes.KINDS)
def test_two_processes_train_on_the_same_rows(kind: str, alone_and_together):
    alone, together = (np.load(folder / f"{kind}.npz") for folder in alone_and_together)
    assert set(alone) == set(together)
    for name in alone:
        np.testing.assert_array_equal(together[name], alone[name])
        rows = np.moveaxis(alone[name], 1, 0) if kind == "cells" else alone[name]
        # This side's specimens have one intensity.
        assert name == "grades" or (rows != rows[:1]).any(), f"{name}: rows that are all alike could stand in any order"


@pytest.mark.slow
@pytest.mark.parametrize("kind", processes.KINDS)
def test_two_processes_read_the_same_of_every_example(kind: str, alone_and_together):
    alone, together = (json.loads((folder / f"{kind}.json").read_text()) for folder in alone_and_together)
    np.testing.assert_allclose(_numbers(together), _numbers(alone), rtol=1e-4, atol=1e-5)
    said = np.array([record["network"]["counts"] if kind == "joint" else record[SAID[kind]] for record in alone])
    distances = np.abs(said[:, None] - said).max(-1) + np.eye(len(said))
    assert distances.min() > 2e-4, "examples of which the same is said could stand in any order"


@pytest.mark.slow
def test_two_processes_extract_the_same_features(alone_and_together):
    alone, together = (np.load(folder / "features.npz")["features"] for folder in alone_and_together)
    assert alone.shape[0] == 18
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_process_reads_the_checkpoint_of_two(alone_and_together):
    together, config = alone_and_together[1], processes.KINDS["cells"]().config
    config.seed = 1  # so that what is not read from the checkpoint differs
    state, _ = restoring.restore(config, together / "cells", states.make_network(config, 3), meshes.make_mesh())
    assert states.params_digest(state.params) == (together / "cells.digest").read_text()


def _numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []
