"""The contract of what users type and get, on the tiny specimens."""

import json
import re
import shutil

import pytest

from tests.conftest import MEASURES

_DIGEST = re.compile(r"^[0-9a-f]{64}$")


@pytest.fixture(scope="module")
def finished(unet_run, tmp_path_factory):
    """A work directory after a run of six steps, and what the run ended with: code, stdout and stderr."""
    code, stdout, stderr = json.loads(unet_run.with_suffix(".json").read_text())
    assert code == 0, stderr
    return shutil.copytree(unet_run, tmp_path_factory.mktemp("run") / "work"), stdout, stderr


def test_the_run_is_quiet_on_stderr_and_speaks_on_stdout(finished):
    _, stdout, stderr = finished
    assert stderr == ""
    assert re.search(r"step 2/6  loss \d.*img/s  waiting for data .* s left", stdout)
    assert _DIGEST.match(stdout.strip().splitlines()[-1].removeprefix("params_digest "))


def test_the_work_directory_holds_what_was_promised(finished):
    workdir, stdout, _ = finished
    for name in ("config.json", "metrics.jsonl", "checkpoints", "report/metrics.json", "report/index.html"):
        assert (workdir / name).exists(), name
    assert list(workdir.glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 3, 4, 6]
    assert {"loss", "learning_rate", "images_per_second", "data_wait_share", "grad_norm"} <= lines[0].keys()
    assert [line["step"] for line in lines if line["split"] == "validation"][:2] == [3, 6]
    assert stdout.strip().endswith(lines[-1]["params_digest"])


def test_the_final_figures_follow_the_contract(finished):
    workdir, *_ = finished
    figures = json.loads((workdir / "report" / "metrics.json").read_text())
    assert set(figures) == {"validation", "test"}
    side = figures["test"]
    keys = {"aca", "mca", "aca_ci95", "mca_ci95", "per_class", "confusion", "classes", "num_examples"}
    assert keys | {"num_specimens", "protocol", "specimen_leakage", "pixel", "specimen", "baselines"} <= side.keys()
    assert side["specimen_leakage"] is False
    assert side["num_specimens"] == side["num_examples"] == 8
    assert {"SE", "SP", "JA", "AC", "Dice", "SEG"} <= side["pixel"].keys()
    assert {"mca", "aca", "confusion"} <= side["specimen"].keys()
    assert set(side["baselines"]) == {"otsu_watershed", "otsu_log_watershed"}
    assert side["baselines"]["otsu_watershed"]["pixel"]["Dice"] > 0.3


def test_the_same_command_again_changes_no_parameter(finished, command, tiny_flags):
    workdir, stdout, _ = finished
    again = command("hep2jax.main", *tiny_flags, f"--workdir={workdir}", "--config.evaluation.gallery_specimens=2")
    assert again.returncode == 0, again.stderr
    assert "continuing at step 6 of 6" in again.stdout
    assert again.stdout.strip().splitlines()[-1] == stdout.strip().splitlines()[-1]


def test_evaluate_alone_gives_the_same_figures(finished, command, tiny_flags):
    workdir, *_ = finished
    before = json.loads((workdir / "report" / "metrics.json").read_text())
    done = command("hep2jax.main", *tiny_flags, f"--workdir={workdir}", "--mode=evaluate", *MEASURES)
    assert done.returncode == 0, done.stderr
    after = json.loads((workdir / "report" / "metrics.json").read_text())
    assert after["test"]["pixel"] == before["test"]["pixel"]
    assert after["test"]["specimen"] == before["test"]["specimen"]
