import json

import pytest

from hep2jax import folds, results
from hep2jax.errors import UsageError


def test_all_folds_are_trained_pooled_and_resumed(tiny_config, tmp_path, capsys):
    config = tiny_config
    config.data.protocol, config.data.num_folds = "kfold", 2
    config.train.num_steps = 2
    figures = folds.run(config, tmp_path / "cv")
    capsys.readouterr()
    parts = [json.loads((tmp_path / "cv" / f"fold-0{k}" / "report" / "fields.json").read_text()) for k in range(2)]
    rows = [results.from_record(row) for part in parts for row in part["sides"]["test"]]
    held_out = [row.score.specimen for row in rows]
    assert len(set(held_out)) == len(held_out) == figures["num_specimens"] == 16
    assert figures["specimen_leakage"] is False
    counts = sum((row.score.counts for row in rows), type(rows[0].score.counts)())
    assert figures["pixel"]["Dice"] == pytest.approx(counts.figures()["Dice"])
    assert json.loads((tmp_path / "cv" / "report" / "metrics.json").read_text())["test"] == figures
    assert (tmp_path / "cv" / "report" / "index.html").stat().st_size > 10_000

    again = folds.run(config, tmp_path / "cv")
    assert again == figures
    assert "step" not in capsys.readouterr().out.replace("specimen", "")  # nothing was trained again

    config.optimizer.learning_rate *= 2
    with pytest.raises(UsageError, match="belongs to another run: optimizer.learning_rate"):
        folds.run(config, tmp_path / "cv")


def test_the_contest_has_one_fold(tiny_config, tmp_path):
    with pytest.raises(UsageError, match="has one fold"):
        folds.run(tiny_config, tmp_path)
