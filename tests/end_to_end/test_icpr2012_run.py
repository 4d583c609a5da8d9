"""Train on the contest's training half, then measure the finished work directory on an archive that has both."""

import json
import pathlib

import pytest

from tests.tfds_builders import icpr2012_layout


@pytest.mark.slow
def test_trained_on_one_half_measured_on_both(command, tmp_path):
    icpr2012_layout.write_archive(tmp_path / "half", numbers=icpr2012_layout.TRAIN, suffix=".png")
    icpr2012_layout.write_archive(tmp_path / "both")
    workdir, data = tmp_path / "w", f"--config.data.data_dir={tmp_path / 'data'}"
    _train_cells(command, tmp_path, data)
    flags = [
        "--config=configs/icpr2012.py",
        data,
        f"--config.evaluation.cell_reader={tmp_path / 'mean'}",
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


def _train_cells(command, folder: pathlib.Path, data: str) -> None:
    """The members of the reader of cells, and their mean, which is measured on both halves, too."""
    flags = [data, "--config.data.scale=1", "--config.evaluation.batch_size=8"]
    members = {
        "texture": ["--config.data.crop_size=32", "--config.fisher.gaussians=2", "--config.fisher.codebook_cells=20"],
        "network": ["--config.train.num_steps=2", "--config.train.checkpoint_every=2"],
    }
    half = f"--config.data.manual_dir={folder / 'half'}"
    for name, more in members.items():
        config = [f"--config=configs/icpr2012_cells.py:{name}", "--config.model.init_from="]
        done = command("hep2jax.main", *config, *flags, *more, half, f"--workdir={folder / name}")
        assert done.returncode == 0, done.stderr
    named = f"--config.model.members={folder / 'texture'},{folder / 'network'}"
    mean = ["--config=configs/icpr2012_cells.py", named, data, f"--workdir={folder / 'mean'}"]
    assert command("hep2jax.main", *mean, half).returncode == 0
    both = command("hep2jax.main", *mean, f"--config.data.manual_dir={folder / 'both'}", "--mode=evaluate")
    assert both.returncode == 0, both.stderr
    figures = json.loads((folder / "mean" / "report" / "metrics.json").read_text())["test"]
    assert figures["num_specimens"] == 14
    assert figures["specimen_leakage"] is False
