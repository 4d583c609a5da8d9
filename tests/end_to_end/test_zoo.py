"""Every cell network of the zoo, as its configuration ships, trains one epoch on the embedded cells; minutes."""

import json

import pytest

from hep2jax.data.sets import prepare
from scripts.bench_zoo import OF_CELLS


@pytest.fixture(scope="module")
def whole_data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepare.prepare("hep2_synthetic", "specimens", str(directory))
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("config", OF_CELLS)
def test_one_epoch(config: str, command, whole_data_dir, tmp_path):
    flags = [f"--config=configs/{config}.py", f"--config.data.data_dir={whole_data_dir}", f"--workdir={tmp_path / 'w'}"]
    rhythm = ["--config.data.balance=none", "--config.train.num_steps=36", "--config.train.log_every=6"]
    done = command("hep2jax.main", *flags, *rhythm, limit=1200)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    figures = json.loads((tmp_path / "w" / "report" / "metrics.json").read_text())["test"]
    assert figures["num_specimens"] == 32
    assert figures["num_examples"] > 300
    assert figures["specimen_leakage"] is False
