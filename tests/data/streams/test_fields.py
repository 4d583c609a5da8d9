import dataclasses

import numpy as np
import pytest

from hep2jax.config import Config, DataConfig, TrainConfig
from hep2jax.data.streams import fields as field_stream
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from tests.data.fields import disc_field, field_set


def _config(**data) -> Config:
    return Config(seed=3, data=DataConfig(crop_size=64, **data), train=TrainConfig(global_batch_size=8))


def _equal(first: field_stream.Batch, second: field_stream.Batch) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_batch_is_a_function_of_seed_and_step():
    fields = field_set()
    first = Stream(FieldPlan(_config(), fields, range(len(fields))))
    second = Stream(FieldPlan(_config(), fields, range(len(fields))))
    for step in (5, 0, 17):
        assert _equal(first.batch(step), second.batch(step))
    assert not _equal(first.batch(1), first.batch(2))
    other = Stream(FieldPlan(dataclasses.replace(_config(), seed=4), fields, range(len(fields))))
    assert not _equal(first.batch(1), other.batch(1))


def test_the_dataset_starts_at_any_step():
    fields = field_set()
    stream = Stream(FieldPlan(_config(), fields, range(len(fields))))
    from_three = list(stream.dataset(3, 6))
    assert len(from_three) == 3
    assert all(_equal(batch, stream.batch(3 + i)) for i, batch in enumerate(from_three))


def test_processes_share_one_global_batch():
    fields = field_set()
    whole = Stream(FieldPlan(_config(), fields, range(len(fields)))).batch(9)
    halves = [
        Stream(FieldPlan(_config(), fields, range(len(fields))), rows=rows).batch(9)
        for rows in (slice(0, 4), slice(4, 8))
    ]
    for name in whole:
        np.testing.assert_array_equal(whole[name], np.concatenate([half[name] for half in halves]))


def test_shapes_dtypes_and_labels():
    fields = field_set()
    batch = Stream(FieldPlan(_config(), fields, range(len(fields)))).batch(0)
    assert batch["image"].shape == batch["labels"].shape == (8, 64, 64)
    assert batch["image"].dtype == batch["labels"].dtype == np.uint8
    assert batch["tone_curve"].shape == (8, 4)
    assert batch["tone_curve"].dtype == np.float32
    assert set(np.unique(batch["labels"])) <= {0, 1, 2, 3}


def test_patterns_are_drawn_equally_often_however_many_specimens_they_have():
    made = [disc_field(f"a{i}", pattern=0) for i in range(9)] + [disc_field("b", pattern=1)]
    fields = dataclasses.replace(field_set(2), fields=tuple(made))
    stream = Stream(FieldPlan(_config(foreground_crops=1.0), fields, range(10)))
    share = np.mean([[(row == 2).any() for row in stream.batch(s)["labels"]] for s in range(60)])
    assert 0.4 < share < 0.6
    by_specimen = Stream(FieldPlan(_config(foreground_crops=1.0, balance="specimen"), fields, range(10)))
    share = np.mean([[(row == 2).any() for row in by_specimen.batch(s)["labels"]] for s in range(60)])
    assert 0.04 < share < 0.18


def test_only_the_named_fields_are_drawn():
    fields = field_set(3)
    chosen = [i for i, f in enumerate(fields.fields) if f.pattern == 1]
    stream = Stream(FieldPlan(_config(), fields, chosen))
    for step in range(10):
        assert set(np.unique(stream.batch(step)["labels"])) <= {0, 2}


def test_a_field_without_cells_can_be_trained_on():
    field = disc_field("a", pattern=0)
    field.working_classes[:] = 0
    fields = dataclasses.replace(field_set(1), fields=(field,))
    assert not Stream(FieldPlan(_config(), fields, [0])).batch(0)["labels"].any()


def test_an_image_smaller_than_the_crop_is_named():
    fields = dataclasses.replace(field_set(1), fields=(disc_field("tiny", pattern=0, size=50),))
    with pytest.raises(UsageError, match=r"tiny, field 0: 50x50 .* smaller than data.crop_size=64"):
        Stream(FieldPlan(_config(), fields, [0]))


def test_nothing_to_train_on_is_said():
    with pytest.raises(UsageError, match="no field to train on"):
        Stream(FieldPlan(_config(), field_set(), []))
