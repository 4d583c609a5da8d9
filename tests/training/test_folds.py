import dataclasses
import json

import pytest

from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.tasks.fields import FieldTask
from hep2jax.training import evaluation, folds, loop


def test_all_folds_are_trained_pooled_and_resumed(tiny_config, tmp_path, capsys):
    config = tiny_config
    config.data.protocol, config.data.num_folds = "kfold", 2
    task, pooled = folds.run(config, tmp_path / "cv")
    capsys.readouterr()
    parts = [json.loads((tmp_path / "cv" / f"fold-0{k}" / "report" / "records.json").read_text()) for k in range(2)]
    rows = [task.from_record(row) for part in parts for row in part["splits"]["test"]]
    held_out = [row.score.specimen for row in rows]
    assert len(set(held_out)) == len(held_out) == pooled.measured.images.num_specimens == 16
    assert pooled.specimen_leakage is False
    assert pooled.leakage_note == "no specimen on two sides"
    counts = sum((row.score.counts for row in rows), type(rows[0].score.counts)())
    assert pooled.measured.pixel.Dice.value == pytest.approx(counts.ratios().Dice)
    assert json.loads((tmp_path / "cv" / "report" / "metrics.json").read_text())["test"] == to_dict(pooled)
    kept = json.loads((tmp_path / "cv" / "report" / "records.json").read_text())
    assert kept == {"classes": list(task.classes), "splits": {"test": [r for p in parts for r in p["splits"]["test"]]}}
    assert (tmp_path / "cv" / "report" / "index.html").stat().st_size > 10_000

    _, again = folds.run(config, tmp_path / "cv")
    assert again == pooled
    assert "step" not in capsys.readouterr().out.replace("specimen", "")  # nothing was trained again

    _check_that_only_records_of_the_fold_are_pooled(config, task, pooled, tmp_path / "cv")
    assert "step 6/6" not in capsys.readouterr().out  # measured again, not trained again

    config.optimizer.learning_rate *= 2
    with pytest.raises(UsageError, match="belongs to another run: optimizer.learning_rate"):
        folds.run(config, tmp_path / "cv")


def _check_that_only_records_of_the_fold_are_pooled(config, task, pooled, directory):
    """Records of other settings, data, examples or parameters are measured again, other training data are refused."""
    folder, path = directory / "fold-01", directory / "fold-01" / "report" / "records.json"
    fold = dataclasses.replace(config, data=dataclasses.replace(config.data, fold=1))
    part = protocols.partition(fold.data, task.name, task.items)
    contest = dataclasses.replace(config, data=dataclasses.replace(config.data, protocol="contest"))
    evaluation.run(contest, folder)  # as --mode=evaluate does: the set's own test side
    assert evaluation.saved_results(task, folder, part, 6) is None
    config.evaluation.foreground_threshold = 0.99
    again, other = folds.run(config, directory)
    assert other.measured.images.num_specimens == 16
    assert other.measured.pixel.SE != pooled.measured.pixel.SE

    kept = json.loads(path.read_text())
    assert evaluation.saved_results(again, folder, part, 6) is not None
    assert evaluation.saved_results(again, folder, part, 1) is None  # of a network that was trained less
    for rows in (kept["splits"]["test"][:-1], kept["splits"]["test"][::-1]):
        path.write_text(json.dumps(kept | {"splits": {"test": rows}}))
        assert evaluation.saved_results(again, folder, part, 6) is None

    fields = list(task.fields.fields)
    image = fields[part.train[0]].image.copy()
    image[0, 0] ^= 1
    fields[part.train[0]] = dataclasses.replace(fields[part.train[0]], image=image)
    changed = FieldTask(config, dataclasses.replace(task.fields, fields=tuple(fields)))
    with pytest.raises(UsageError, match="trained on other data: pixels, labels or specimens"):
        loop.complete(fold, folder, changed)


def test_the_contest_has_one_fold(tiny_config, tmp_path):
    with pytest.raises(UsageError, match="has one fold"):
        folds.run(tiny_config, tmp_path)


def test_pooled_metrics_say_how_many_folds_leak():
    def part(leaks: bool, note: str) -> protocols.Partition:
        return protocols.Partition(
            train=(0,), validation=(), test=(1,), description="", specimen_leakage=leaks, leakage_note=note
        )

    clean, leaking = part(False, "no specimen on two sides"), part(True, "they leak (1 of 5 specimens)")
    assert folds.leakage_note([clean, clean]) == "no specimen on two sides"
    assert folds.leakage_note([clean, leaking]) == "they leak (1 of 5 specimens); so or alike in 1 of 2 folds"
