"""A field network trains on a made-up archive of I3A Task 2, whole specimens held out."""

import json

import pytest

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.splits import protocols
from hep2jax.training import loop
from tests.tfds_builders import icpr2014_task2_layout


def configuration(tmp_path, protocol):
    return Config(
        data=DataConfig(
            name="icpr2014_task2",
            data_dir=str(tmp_path / "data"),
            manual_dir=str(tmp_path / "archive"),
            protocol=protocol,
            num_folds=2,
            crop_size=32,
        ),
        model=ModelConfig(name="fcn", width=0.05),
        train=TrainConfig(num_steps=2, global_batch_size=8, log_every=1, checkpoint_every=2),
        evaluation=EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=8),
    )


@pytest.mark.slow
def test_two_steps_and_their_figures(tmp_path):
    icpr2014_task2_layout.write_archive(tmp_path / "archive", fields=2)
    loop.train(configuration(tmp_path, "kfold"), tmp_path / "work")
    figures = json.loads((tmp_path / "work" / "report" / "metrics.json").read_text())["test"]
    assert figures["specimen_leakage"] is False
    assert (figures["specimen"]["num_specimens"], figures["num_examples"]) == (7, 14)
    assert figures["classes"][-1] == "mitotic_spindle"
    page = (tmp_path / "work" / "report" / "index.html").read_text()
    assert "AC-25, AC-26" in page


def test_the_contest_has_no_test_side(tmp_path):
    icpr2014_task2_layout.write_archive(tmp_path / "archive", fields=1)
    data = configuration(tmp_path, "contest").data
    fields = field_sets.load(data)
    partition = protocols.partition(data, fields.name, fields.items, fields.classes)
    assert partition.splits().keys() == {"train"}
    assert partition.description == "the splits of icpr2014_task2, by specimen; its test split is not at hand"
