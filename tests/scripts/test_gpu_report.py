"""The report on a GPU keeps every row, finds the right ratios, and runs from end to end on a CPU in small sizes."""

import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from scripts import fetch_wheels, gpu_report
from scripts.peers import protocol


def _report(directory: pathlib.Path) -> gpu_report.Report:
    return gpu_report.Report(directory, {"devices": ["one"]}, time.monotonic() + 60)


def test_rows_are_on_disk_at_once_and_ratios_are_of_the_same_measurement(tmp_path: pathlib.Path):
    report = _report(tmp_path)
    report.add({"network": "gao", "what": "predict", "side": "ours", "batch": 10, "seconds": 0.001})
    report.add({"network": "gao", "what": "train", "side": "torch.compile", "batch": 10, "seconds": 0.004})
    report.add({"network": "gao", "what": "train", "side": "torch.compile", "compile_seconds": 33.0})
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3
    report.add({"network": "gao", "what": "train", "side": "ours", "batch": 10, "seconds": 0.002, "mfu": 0.25})
    assert "| `gao` | train | torch.compile | 10 | 4 | 2,500 | 0.5 | – | – | – | 33 |" in report.text()
    assert "| `gao` | train | ours | 10 | 2 | 5,000 | 1 | 25.0% |" in report.text()
    assert (tmp_path / "table.md").read_text() == report.text() + "\n"


def test_a_failure_is_a_row_and_does_not_end_the_report(tmp_path: pathlib.Path):
    report = _report(tmp_path)

    def fails() -> None:
        raise MemoryError("no room")

    gpu_report._attempt(report, "fcn", "train", fails)
    assert "* `fcn`, train, ours: failed: MemoryError: no room" in report.text()


def test_arrays_by_path_come_back_as_a_tree(tmp_path: pathlib.Path):
    arrays = {"stages/0/kernel": np.arange(6.0), "head/bias": np.ones(2)}
    protocol.save_arrays(tmp_path / "arrays.npz", arrays)
    tree = protocol.nested(protocol.load_arrays(tmp_path / "arrays.npz"))
    np.testing.assert_array_equal(tree["stages"]["0"]["kernel"], arrays["stages/0/kernel"])
    np.testing.assert_array_equal(tree["head"]["bias"], arrays["head/bias"])


def test_the_error_of_gradients_is_that_of_all_together():
    process = pytest.importorskip("scripts.peers.process", reason="PyTorch, an extra of the benchmarks, is absent")
    truth = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    found = {"a": np.array([3.0, 0.3]), "b": np.array([4.4])}
    assert process.relative_error(found, truth) == pytest.approx(0.1)
    assert math.isnan(process.relative_error(found | {"b": np.array([np.nan])}, truth))
    with pytest.raises(ValueError, match="not the same arrays"):
        process.relative_error({"a": truth["a"]}, truth)


def test_networks_have_their_published_size():
    assert gpu_report.configuration("resnet", tiny=False).model.depth == 18
    for name in gpu_report.CONFIGURATIONS:
        config = gpu_report.configuration(name, tiny=False)
        assert config.model.name == name
        assert config.model.width == 1.0


def test_every_wheel_has_a_pinned_version(tmp_path: pathlib.Path):
    constraints = pathlib.Path(__file__).resolve().parents[2] / "constraints.txt"
    download, build = fetch_wheels.commands(fetch_wheels.pinned(constraints.read_text()), tmp_path, "3.12")
    assert {"grain==0.2.18", "--python-version=3.12"} <= set(download)
    assert build[-1].startswith("promise==")


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu(tmp_path: pathlib.Path):
    pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is absent")
    options = ["--tiny", "--networks=gao", "--minutes=8", "--seconds=0.05", f"--output={tmp_path / 'report'}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TFDS_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "scripts.gpu_report", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    timed = {(row["what"], row["side"]) for row in rows if "seconds" in row}
    assert {("train", "ours"), ("train", "PyTorch, eager"), ("data", "device warp, with data")} <= timed
    errors = {row["side"]: row["gradient_error"] for row in rows if "gradient_error" in row}
    assert errors["ours, float32"] < 1e-5
    assert errors["ours, bfloat16"] < 0.05
