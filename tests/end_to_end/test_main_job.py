"""The main job as users run it; minutes, so in the slow lane."""

import json

import pytest


@pytest.mark.slow
def test_the_default_configuration_reads_held_out_specimens(command, tmp_path):
    flags = ["--config=configs/fcn.py", f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'w'}"]
    done = command("hep2jax.main", *flags, limit=1800)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "w" / "report" / "metrics.json").read_text())["test"]
    assert figures["num_specimens"] >= 24
    assert figures["pixel"]["Dice"] >= 0.90
    assert figures["specimen"]["mca"] >= 0.85
    lines = [json.loads(line) for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
    waits = sorted(line["data_wait_share"] for line in lines if line["split"] == "train")
    assert waits[len(waits) // 2] < 0.05
