"""How often classes come: what the streams say of it, against what they deliver."""

import dataclasses

import numpy as np
import pytest

from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.sets.items import Item
from hep2jax.data.streams import (
    bags as bag_stream,
)
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.cells import CellPlan
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.joint import JointPlan
from hep2jax.data.streams.stream import Sampler, Stream
from hep2jax.metrics.pixels import VOID
from tests.data import labelled
from tests.data.cell_tables import cell_set
from tests.data.fields import disc_field

BALANCES = ("pattern", "specimen", "class", "none")


def _config(balance: str, **data) -> Config:
    settings = {"crop_size": 32, "bag_tiles": 1, "balance": balance, **data}
    return Config(data=DataConfig(**settings), augment=AugmentConfig(), train=TrainConfig(global_batch_size=64))


@pytest.fixture(scope="module")
def fields() -> FieldSet:
    """Five specimens of one pattern, one of another, with two fields; one field is half void."""
    made = [disc_field(f"a{i}", pattern=0, size=96) for i in range(5)]
    made += [disc_field("b", pattern=1, number=number, size=96) for number in range(2)]
    made[0].working_classes[:48] = VOID
    return FieldSet(name="made_up", classes=("one", "two", "absent"), fields=tuple(made))


@pytest.mark.parametrize("balance", BALANCES)
def test_shares_of_examples_are_how_often_they_are_drawn(balance: str):
    """Three specimens of two patterns, with one, three and two examples; one example has both, one has none."""
    rows = [("a", 0, ()), ("b", 0, ()), ("b", 0, ()), ("b", 1, (0,)), ("c", 1, ()), ("c", 2, ())]
    items = [
        Item(identifier=str(i), specimen=name, group=name, pattern=pattern, further=further, split="train")
        for i, (name, pattern, further) in enumerate(rows)
    ]
    sampler = Sampler(items, balance, seed=0)
    drawn = sampler.draw(np.random.default_rng(0), 0, 24000)
    np.testing.assert_allclose(np.bincount(drawn, minlength=6) / 24000, sampler.shares, atol=0.01)
    assert sampler.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("balance", BALANCES)
def test_classes_of_pixels(balance: str, fields: FieldSet):
    stream = Stream(FieldPlan(_config(balance), fields, range(7)))
    labels = np.stack([stream.batch(step)["labels"] for step in range(25)])
    delivered = np.bincount(labels[labels != VOID], minlength=4) / (labels != VOID).sum()
    found = stream.frequencies()
    np.testing.assert_allclose(found, delivered, atol=0.02)
    assert found.sum() == pytest.approx(1)
    assert found[3] == 0
    crops, anywhere = (
        found[1:].sum(),
        Stream(FieldPlan(_config(balance, foreground_crops=0.0), fields, range(7))),
    )
    assert crops > 1.2 * anywhere.frequencies()[1:].sum()  # crops are centred on cells


def test_a_class_that_no_crop_shows_keeps_its_share(fields: FieldSet):
    """One pixel of a large field, in a corner that crops of its middle never reach."""
    field = disc_field("rare", pattern=2, size=96)
    field.working_classes[:] = 0
    field.working_classes[0, 0] = 3
    still = AugmentConfig(rotate=False, mirror=False, scale_min=1, scale_max=1)
    config = dataclasses.replace(_config("none", crop_size=2, foreground_crops=0.0), augment=still)
    alone = dataclasses.replace(fields, fields=(field,))
    found = Stream(FieldPlan(config, alone, [0])).frequencies()
    assert 0 < found[3] < 0.01
    assert found[1] == found[2] == 0


@pytest.mark.parametrize("balance", BALANCES)
def test_patterns_of_cells_specimens_and_images(balance: str, fields: FieldSet):
    config = _config(balance)
    cells = cell_set(config.data, specimens=2, cells=4, num_patterns=2)
    uneven = [i for i, item in enumerate(cells.items) if item.pattern == 0 or item.specimen == "ring-0"][1:]
    images = labelled.image_set()
    several = [0, 1, 2, 3, 4, 6, 8]
    for stream, patterns in (
        (Stream(CellPlan(config, cells, uneven)), "labels"),
        (Stream(JointPlan(config, fields, range(7))), "patterns"),
        (Stream(BagPlan(config, bag_stream.from_specimens(fields, range(7)))), "labels"),
        (Stream(BagPlan(config, bag_stream.from_images(images, several))), "labels"),
    ):
        delivered = np.concatenate([stream.batch(step)[patterns] for step in range(30)])
        found = stream.frequencies()
        counts = delivered.sum(0) if delivered.ndim == 2 else np.bincount(delivered, minlength=len(found))
        np.testing.assert_allclose(found, counts / counts.sum(), atol=0.035)
