"""Verdicts of calibrated readers, and the file that a run leaves."""

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest

import hep2jax
from hep2jax import api, files, predict
from hep2jax.data.sets.appearance import NUMBERS, Detector
from hep2jax.tasks import calibration as calibrations
from hep2jax.tasks.calibration import Calibration, Identity, Outcome
from hep2jax.training import evaluation

IDENTITY = Identity(step=1, trained_on="a", validated_on="b", settings="c")
FLAT, BRIGHT = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
BRIGHT[:, ::4] = 200


class Fixed(Detector):
    """Says the same of every image."""

    def distance(self, numbers):
        return 0.5


def _detector(kind=Detector, least=0.0) -> Detector:
    return kind(mean=np.zeros(NUMBERS), precision=np.eye(NUMBERS), threshold=1e-3, least_signal=least)


def _fit(outcomes, several=False, detector=None, negatives=False) -> Calibration:
    return calibrations.fit(
        outcomes,
        detector or _detector(Fixed),
        identity=IDENTITY,
        least=1e-4,
        several=several,
        pattern_threshold=0.5,
        knows_negatives=negatives,
    )


@pytest.fixture(scope="module")
def made() -> Calibration:
    """Of a reader that is sure of 12 right readings and of one that is wrong, and doubts one that is wrong."""
    rows = [(0.99, 0), (0.99, 0), (0.99, 0)] * 4 + [(0.99, 1), (0.6, 1)]
    return _fit([Outcome(np.array([p, 1 - p]), truth, f"s{i}") for i, (p, truth) in enumerate(rows)])


def test_a_temperature_makes_a_sure_reader_as_sure_as_it_is_right(made):
    assert made.temperature[0] > 1
    assert made.confidence(np.array([[0.99, 0.01]]))[0] == pytest.approx(12 / 13, abs=0.06)
    assert made.confidence(np.array([[0.0, 0.0]]))[0] == 0.0  # no cell was found
    assert made.validation["num_examples"] == made.validation["num_specimens"] == 14
    assert made.validation["ece_after"] < made.validation["ece_before"]


def _judge(calibration, probabilities, *pictures):
    return calibration.judge(probabilities, [calibration.detector.look(picture) for picture in pictures])


def test_verdicts(made):
    sure, unsure = np.array([0.99, 0.01]), np.array([0.55, 0.45])
    alike = dataclasses.replace(made, refer_below=0.7)
    assert _judge(alike, sure, BRIGHT).words == ""
    assert _judge(alike, unsure, BRIGHT).words == calibrations.REFER
    assert _judge(alike, np.zeros(2), BRIGHT).words == calibrations.REFER
    assert _judge(alike.with_threshold(0.5), unsure, BRIGHT).words == ""
    assert alike.with_threshold(-1.0) is alike
    unlike = dataclasses.replace(alike, detector=_detector())
    assert _judge(unlike, sure, BRIGHT)[1:] == (unlike.detector.novelty(BRIGHT), calibrations.UNLIKE)
    faint = dataclasses.replace(alike, detector=_detector(Fixed, least=10.0))
    assert _judge(faint, sure, FLAT).words == calibrations.FAINT
    assert _judge(faint, sure, FLAT, BRIGHT).words == ""  # one field of the specimen has cells


def test_several_patterns_and_none():
    rows = [([0.9, 0.1], [1, 0]), ([0.2, 0.9], [0, 1]), ([0.1, 0.2], [0, 0]), ([0.8, 0.7], [1, 1])]
    outcomes = [Outcome(np.array(p), np.array(t), "") for p, t in rows]
    made = _fit(outcomes, several=True, negatives=True)
    assert len(made.temperature) == 2
    by_hand = np.prod(
        [
            max(p ** (1 / t), (1 - p) ** (1 / t)) / (p ** (1 / t) + (1 - p) ** (1 / t))
            for p, t in zip((0.9, 0.1), made.temperature, strict=True)
        ]
    )
    assert made.confidence(np.array([[0.9, 0.1]]))[0] == pytest.approx(by_hand)
    found = made.measure(outcomes, [], unit="image", in_sample=True)
    assert found.kept is not None
    assert (found.kept.accuracy, found.num_specimens) == (1.0, None)
    none = np.array([0.01, 0.01])
    assert _judge(made, none, BRIGHT).words == calibrations.NEGATIVE
    assert _judge(dataclasses.replace(made, knows_negatives=False), none, BRIGHT).words == ""


def test_a_calibration_in_json_and_back(made):
    record = json.loads(json.dumps(made.to_record()))
    assert Calibration.from_record(record).to_record() == made.to_record()
    for damage in ({"temperature": [-1.0]}, {"temperature": []}, {"refer_below": 2.0}, {"detector": {}}, {"more": 1}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Calibration.from_record(record | damage)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run of two steps on the tiny specimens, and what it measured."""
    config = hep2jax.load_config("cnn")
    config.data.builder_config, config.data.data_dir = "specimens_tiny", str(data_dir)
    config.train.num_steps, config.train.global_batch_size, config.evaluation.batch_size = 2, 8, 8
    config.optimizer.warmup_steps, config.evaluation.dihedral = 1, False
    workdir = tmp_path_factory.mktemp("calibration") / "w"
    return config, workdir, hep2jax.train(config, workdir)


def test_a_run_leaves_its_calibration_and_measures_it(trained):
    _, workdir, metrics = trained
    kept = files.read_json(workdir / calibrations.FILE)
    assert kept["identity"]["step"] == 2
    assert kept["identity"]["trained_on"] == files.read_json(workdir / "trained_on.json")
    assert [metrics[split]["calibration"]["in_sample"] for split in ("validation", "test")] == [True, False]
    assert metrics["validation"]["calibration"]["after"]["ece"] == kept["validation"]["ece_after"]
    assert metrics["test"]["calibration"]["num_specimens"] == 6
    page = (workdir / "report" / "index.html").read_text()
    assert "Reliability: right against confidence" in page
    assert "Coverage: right of those kept against the share kept" in page


def test_readings_say_how_sure_they_are(trained):
    _, workdir, _ = trained
    reader = api.load(workdir)
    reading = reader(np.random.default_rng(0).integers(0, 255, (60, 70)).astype(np.uint8))
    assert reading.novelty is not None
    assert reading.novelty > 1
    assert reading.verdict == calibrations.UNLIKE
    values = np.array(list(reading.probabilities.values()))
    assert reading.confidence == reader.calibration.confidence(values[None])[0]
    assert list(reader.row(reading))[2:5] == ["confidence", "novelty", "verdict"]


def test_evaluation_makes_it_where_it_is_absent_or_damaged_and_keeps_it_elsewhere(trained, capsys):
    config, workdir, _ = trained
    path = workdir / calibrations.FILE
    before = path.read_bytes()
    path.write_text("{}")
    assert api.load(workdir).calibration is None
    assert "is damaged" in capsys.readouterr().err
    evaluation.run(config, workdir)
    assert path.read_bytes() == before
    other = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, refer_below=0.9))
    evaluation.run(other, workdir)
    assert path.read_bytes() == before
    measured = files.read_json(workdir / "report" / "metrics.json")
    assert measured["test"]["calibration"]["refer_below"] == 0.9
    path.write_text(json.dumps(json.loads(before) | {"identity": {**json.loads(before)["identity"], "step": 1}}))
    assert api.load(workdir).calibration is None  # of another checkpoint
    path.write_bytes(before)


def test_prediction_says_what_the_network_has_seen(trained, tmp_path, capsys):
    _, workdir, _ = trained
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(0).integers(0, 255, (60, 70)).astype(np.uint8))
    predict.predict(workdir, [str(tmp_path / "noise.png")], tmp_path / "out")
    said = capsys.readouterr().out
    assert "gao was trained on synthetic specimens only" in said
    assert f"verdicts on 1 images: 1 {calibrations.UNLIKE}" in said
    with (tmp_path / "out" / "predictions.csv").open() as table:
        assert [row["verdict"] for row in csv.DictReader(table)] == [calibrations.UNLIKE]
    assert json.loads((tmp_path / "out" / "predictions.jsonl").read_text())["verdict"] == calibrations.UNLIKE
