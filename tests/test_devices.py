"""The same run on 1, 2, 4 and 8 virtual devices, and on two processes."""

import json
import socket

import numpy as np
import pytest

STEPS = 20


def _losses(workdir) -> np.ndarray:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["split"] == "train"])


def _flags(tiny_flags, workdir) -> list[str]:
    return [
        *tiny_flags,
        "--config.train.log_every=1",
        f"--config.train.num_steps={STEPS}",
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


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_device_counts_give_the_same_losses(devices: int, one_device, command, tiny_flags, tmp_path):
    done = command("hep2jax.main", *_flags(tiny_flags, tmp_path / "w"), env={"JAX_NUM_CPU_DEVICES": str(devices)})
    assert done.returncode == 0, done.stderr
    assert f"{devices} cpu device(s)" in done.stdout
    assert len(_losses(tmp_path / "w")) == STEPS
    np.testing.assert_allclose(_losses(tmp_path / "w"), _losses(one_device), rtol=2e-5)
    figures = [json.loads((w / "report" / "metrics.json").read_text()) for w in (tmp_path / "w", one_device)]
    for name in ("Dice", "JA", "AC", "SEG"):
        assert figures[0]["test"]["pixel"][name] == pytest.approx(figures[1]["test"]["pixel"][name], abs=2e-3)


def test_a_batch_that_does_not_divide_is_refused(command, tiny_flags, tmp_path):
    done = command(
        "hep2jax.main",
        *tiny_flags,
        "--config.train.global_batch_size=6",
        f"--workdir={tmp_path / 'w'}",
        env={"JAX_NUM_CPU_DEVICES": "4"},
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "hep2jax: train.global_batch_size=6 does not divide over 4 devices; take 4 or 8"
    assert not (tmp_path / "w").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_give_the_same_losses(one_device, command, tiny_flags, tmp_path):
    port = _free_port()
    flags = [*_flags(tiny_flags, tmp_path / "w"), f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    env = {"JAX_NUM_CPU_DEVICES": "2"}
    runs = [command("hep2jax.main", *flags, f"--process_id={i}", env=env, start=True) for i in range(2)]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs[0][1] + outputs[1][1]
    assert "4 cpu device(s)" in outputs[0][0]
    assert "step" not in outputs[1][0]  # one process speaks
    np.testing.assert_allclose(_losses(tmp_path / "w"), _losses(one_device), rtol=2e-5)


def test_cells_on_two_processes_give_the_same_figures(command, data_dir, tmp_path):
    """One device against two processes of two: the same batches, losses and probabilities of every held-out cell."""
    flags = [
        "--config=configs/cnn.py",
        "--config.data.builder_config=specimens_tiny",
        f"--config.data.data_dir={data_dir}",
        "--config.train.num_steps=6",
        "--config.train.log_every=1",
        "--config.train.global_batch_size=8",
        "--config.optimizer.learning_rate=1e-4",
        "--config.evaluation.batch_size=4",
    ]
    alone = command("hep2jax.main", *flags, f"--workdir={tmp_path / 'one'}", env={"JAX_NUM_CPU_DEVICES": "1"})
    assert alone.returncode == 0, alone.stderr
    together = [*flags, f"--workdir={tmp_path / 'two'}", f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2"]
    env = {"JAX_NUM_CPU_DEVICES": "2"}
    runs = [command("hep2jax.main", *together, f"--process_id={i}", env=env, start=True) for i in range(2)]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs[0][1] + outputs[1][1]
    np.testing.assert_allclose(_losses(tmp_path / "two"), _losses(tmp_path / "one"), rtol=2e-5)
    records = [json.loads((tmp_path / w / "report" / "records.json").read_text())["sides"] for w in ("one", "two")]
    for one, two in zip(records[0]["test"], records[1]["test"], strict=True):
        assert one["identifier"] == two["identifier"]
        np.testing.assert_allclose(one["probabilities"], two["probabilities"], atol=1e-4)
