import json

import pytest

from hep2jax import folds
from hep2jax.data import protocols
from hep2jax.errors import UsageError


def test_all_folds_are_trained_pooled_and_resumed(tiny_config, tmp_path, capsys):
    config = tiny_config
    config.data.protocol, config.data.num_folds = "kfold", 2
    config.train.num_steps = 2
    task, figures = folds.run(config, tmp_path / "cv")
    capsys.readouterr()
    parts = [json.loads((tmp_path / "cv" / f"fold-0{k}" / "report" / "records.json").read_text()) for k in range(2)]
    rows = [task.from_record(row) for part in parts for row in part["sides"]["test"]]
    held_out = [row.score.specimen for row in rows]
    assert len(set(held_out)) == len(held_out) == figures["num_specimens"] == 16
    assert figures["specimen_leakage"] is False
    assert figures["leakage_note"] == "no specimen on two sides"
    counts = sum((row.score.counts for row in rows), type(rows[0].score.counts)())
    assert figures["pixel"]["Dice"] == pytest.approx(counts.figures()["Dice"])
    assert json.loads((tmp_path / "cv" / "report" / "metrics.json").read_text())["test"] == figures
    assert (tmp_path / "cv" / "report" / "index.html").stat().st_size > 10_000

    _, again = folds.run(config, tmp_path / "cv")
    assert again == figures
    assert "step" not in capsys.readouterr().out.replace("specimen", "")  # nothing was trained again

    config.optimizer.learning_rate *= 2
    with pytest.raises(UsageError, match="belongs to another run: optimizer.learning_rate"):
        folds.run(config, tmp_path / "cv")


def test_the_contest_has_one_fold(tiny_config, tmp_path):
    with pytest.raises(UsageError, match="has one fold"):
        folds.run(tiny_config, tmp_path)


def test_pooled_figures_say_how_many_folds_leak():
    def part(leaks: bool, note: str) -> protocols.Partition:
        return protocols.Partition(
            train=(0,), validation=(), test=(1,), description="", specimen_leakage=leaks, leakage_note=note
        )

    clean, leaking = part(False, "no specimen on two sides"), part(True, "they leak (1 of 5 specimens)")
    assert folds.leakage_note([clean, clean]) == "no specimen on two sides"
    assert folds.leakage_note([clean, leaking]) == "they leak (1 of 5 specimens); so or alike in 1 of 2 folds"
