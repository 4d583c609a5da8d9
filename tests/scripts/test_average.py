"""The mean of several runs: worked out by hand, and runs that do not go together."""

import json
import pathlib

import pytest

from configs import cnn, fcn
from hep2jax import config as configs
from hep2jax import tasks
from hep2jax.errors import UsageError
from scripts.average import average

CLASSES = ["homogeneous", "golgi"]
SURE_OF_FIRST, WAVERING, SURE_OF_SECOND = [0.9, 0.1], [0.45, 0.55], [0.2, 0.8]


def finish(directory: pathlib.Path, readings: dict[str, list[float]], *, truth: int = 0, **said) -> pathlib.Path:
    """A work directory of a cell network whose evaluation read these cells, all of one pattern."""
    (directory / "report").mkdir(parents=True)
    config = tasks.resolve(cnn.get_config())
    configs.save(config, directory / "config.json")
    records = [
        {"identifier": name, "specimen": name[0], "intensity": "positive", "truth": truth, "probabilities": row}
        for name, row in readings.items()
    ]
    (directory / "report" / "records.json").write_text(json.dumps({"classes": CLASSES, "splits": {"test": records}}))
    section = {"protocol": "made up", "specimen_leakage": False, "leakage_note": "no specimen on two sides"} | said
    (directory / "report" / "metrics.json").write_text(json.dumps({"test": section}))
    return directory


def test_the_mean_reads_what_most_say_with_certainty(tmp_path):
    one = finish(tmp_path / "one", {"a1": WAVERING, "a2": SURE_OF_SECOND, "b1": SURE_OF_FIRST})
    other = finish(tmp_path / "other", {"b1": SURE_OF_FIRST, "a2": WAVERING, "a1": SURE_OF_FIRST})
    headline = average([one, other], tmp_path / "mean")
    assert headline["test"]["aca"] == pytest.approx(2 / 3), "a1 is mended by the other run, a2 stays wrong"
    kept = json.loads((tmp_path / "mean" / "report" / "records.json").read_text())["splits"]["test"]
    assert [(row["identifier"], row["probabilities"]) for row in kept] == [
        ("a1", [0.675, 0.325]),
        ("a2", [0.325, 0.675]),
        ("b1", [0.9, 0.1]),
    ]
    figures = json.loads((tmp_path / "mean" / "report" / "metrics.json").read_text())["test"]
    assert (figures["protocol"], figures["leakage_note"]) == ("made up", "no specimen on two sides")
    assert (figures["num_examples"], figures["num_specimens"]) == (3, 2)
    again = average([tmp_path / "mean", tmp_path / "mean"], tmp_path / "mean of means")
    assert again == headline


def test_runs_that_do_not_go_together_are_refused(tmp_path):
    one = finish(tmp_path / "one", {"a1": WAVERING})
    with pytest.raises(UsageError, match="was measured on other cells"):
        average([one, finish(tmp_path / "more", {"a1": WAVERING, "a2": WAVERING})], tmp_path / "mean")
    with pytest.raises(UsageError, match="was measured on other cells"):
        average([one, finish(tmp_path / "relabelled", {"a1": WAVERING}, truth=1)], tmp_path / "mean")
    with pytest.raises(UsageError, match="not measured under one protocol"):
        average([one, finish(tmp_path / "leaks", {"a1": WAVERING}, specimen_leakage=True)], tmp_path / "mean")
    with pytest.raises(UsageError, match="is not finished, records.json is not there"):
        average([one, tmp_path / "nothing"], tmp_path / "mean")
    fields = finish(tmp_path / "fields", {"a1": WAVERING})
    configs.save(fcn.get_config(), fields / "config.json")
    with pytest.raises(UsageError, match="holds no cell network, but fcn"):
        average([fields, one], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_the_command_needs_two_runs(command, tmp_path):
    done = command("scripts.average", f"--member={tmp_path}", f"--workdir={tmp_path / 'mean'}")
    assert done.returncode == 2
    assert "name at least two runs" in done.stderr
