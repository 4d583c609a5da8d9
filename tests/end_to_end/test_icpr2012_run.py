"""Train on the contest's training half, then measure the finished work directory on an archive that has both."""

import json

import pytest

from tests.tfds_builders import icpr2012_layout


@pytest.mark.slow
def test_trained_on_one_half_measured_on_both(command, tmp_path):
    icpr2012_layout.write_archive(tmp_path / "half", numbers=icpr2012_layout.TRAIN, suffix=".png")
    icpr2012_layout.write_archive(tmp_path / "both")
    workdir = tmp_path / "w"
    flags = [
        "--config=configs/icpr2012.py",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.scale=1",  # the made-up specimens are tiny
        "--config.data.crop_size=32",
        "--config.model.width=0.01",
        "--config.train.global_batch_size=4",
        "--config.train.num_steps=2",
        "--config.evaluation.tile_size=64",
        "--config.evaluation.tile_overlap=0",
        "--config.evaluation.nuclear_diameter=10",
        "--config.evaluation.min_object_pixels=1",
        f"--workdir={workdir}",
    ]
    done = command("hep2jax.main", *flags, f"--config.data.manual_dir={tmp_path / 'half'}")
    assert done.returncode == 0, done.stderr
    assert "its test split is not at hand" in done.stdout
    assert "split test: 0 of 14 specimens found" in done.stderr
    figures = json.loads((workdir / "report" / "metrics.json").read_text())
    assert set(figures) == {"train"}  # the only specimens at hand, and it says that it was trained on them
    assert figures["train"]["specimen_leakage"] is True
    assert "trained on" in figures["train"]["protocol"]

    done = command("hep2jax.main", *flags, "--mode=evaluate", f"--config.data.manual_dir={tmp_path / 'both'}")
    assert done.returncode == 0, done.stderr
    figures = json.loads((workdir / "report" / "metrics.json").read_text())
    assert set(figures) == {"test"}
    assert figures["test"]["num_specimens"] == 14
    assert figures["test"]["specimen_leakage"] is False
    assert figures["test"]["protocol"] == "the splits of icpr2012, by specimen"
