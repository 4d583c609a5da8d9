"""What kinds of tasks make of a folder of a user's own; no training."""

import csv

import pytest

from hep2jax import config_files, tasks
from hep2jax.config import Config
from hep2jax.data.sets import cells
from hep2jax.errors import UsageError
from scripts import make_example_folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of specimens, and the same without masks."""
    place = tmp_path_factory.mktemp("own")
    for name in ("annotated", "bare"):
        make_example_folder.write(place / name, "specimens", specimens=1, side=128, seed=0)
    with (place / "bare" / "labels.csv").open(newline="") as file:
        rows = [row[:1] + row[2:] for row in csv.reader(file)]
    with (place / "bare" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return place


def _config(folders, name: str, variant: str) -> Config:
    config = config_files.load(f"folder:{variant}")
    config.data.manual_dir, config.data.data_dir = str(folders / name), str(folders / "data")
    config.data.scale = 0.5
    return config


PATTERNS = ("centromere", "homogeneous", "nuclear_membrane")


@pytest.mark.parametrize("variant", ["", "images", "cells", "fisher"])
def test_every_variant_takes_an_annotated_folder(folders, variant):
    config = _config(folders, "annotated", variant)
    config.data.builder_config = "specimens"
    task = tasks.load(tasks.resolve(config))
    assert task.classes == tasks.patterns(config) == PATTERNS


def test_networks_that_need_masks_refuse_fields_without_any(folders):
    refusal = (
        "learns from masks, and 3 of 3 fields of folder have none, such as .*; add masks, .* or take model.name=mil"
    )
    with pytest.raises(UsageError, match=f"^model.name=dsfcn {refusal}"):
        tasks.load(tasks.resolve(_config(folders, "bare", "")))
    assert tasks.load(tasks.resolve(_config(folders, "bare", "images"))).classes == PATTERNS
    config = _config(folders, "bare", "cells")
    config.data.builder_config = "specimens"
    with pytest.raises(
        UsageError, match="folder/specimens/1.0.0: no cell can be cut from its fields, for want of masks"
    ):
        cells.load(config.data)
