"""The comparison's command: what it takes, what it refuses, and a run from end to end."""

import json
import pathlib

import pytest

from hep2jax.errors import UsageError
from hep2jax.specimens.systems import SYSTEMS, ImageNetFeatures
from scripts import specimen_systems as compare

ROW = {
    "family": "single cells",
    "accuracy": 0.9,
    "accuracy_ci95": [0.8, 1.0],
    "mca": 0.85,
    "mca_ci95": None,
    "one_field_accuracy": 0.75,
    "one_field_accuracy_ci95": [0.5, 0.9],
    "gain_of_fields": 0.15,
    "gain_of_fields_ci95": [-0.05, 0.3],
    "Dice": None,
    "Dice_ci95": None,
    "JA": 0.7,
    "JA_ci95": [0.6, 0.8],
    "intensity_accuracy": None,
    "intensity_accuracy_ci95": None,
    "seconds_per_specimen": 0.123,
    "left_out": {"s1": "no cell was found in it"},
}


def test_every_family_is_compared_by_default():
    names = compare.choose("")
    assert {"cells-true-network-prevalence", "cells-predicted-network-prevalence", "pixels"} <= set(names)
    assert {name for name in SYSTEMS if not name.startswith("cells-")} <= set(names)
    assert compare.choose("pixels, cells-otsu-network-*") == [
        "cells-otsu-network-prevalence",
        "cells-otsu-network-mean_probability",
        "pixels",
    ]
    with pytest.raises(UsageError, match="--systems=voxels: no such system"):
        compare.choose("voxels")


@pytest.mark.parametrize("data", list(compare.PARTS))
def test_every_part_of_every_set_has_a_configuration_that_every_system_takes(data):
    parts = compare.read_parts(data, [])
    assert parts.keys() == compare.PARTS[data].keys()
    assert {part: config.data.name for part, config in parts.items()} == dict.fromkeys(parts, data)
    assert len({config.data.channel for config in parts.values()}) == 1
    made, unmade = compare.make_systems(list(SYSTEMS), parts, ImageNetFeatures())
    assert [system.name for system in made] == list(SYSTEMS)
    assert unmade == {}


def test_a_part_without_configuration_leaves_its_systems_out():
    parts = compare.read_parts("hep2_synthetic", [])
    made, unmade = compare.make_systems(["pixels", "mil"], {"pixels": parts["pixels"]}, ImageNetFeatures())
    assert [system.name for system in made] == ["pixels"]
    assert unmade == {"mil": "needs a configuration of the part 'mil' for this data set"}


def test_keys_can_be_set():
    parts = compare.read_parts("hep2_synthetic", ["cells.train.num_steps=7", "pixels.model.name=unet"])
    assert (parts["cells"].train.num_steps, parts["pixels"].model.name) == (7, "unet")
    assert parts["cells"].evaluation.batch_size == 32
    with pytest.raises(UsageError, match="did you mean 'cells.train.num_steps'"):
        compare.read_parts("hep2_synthetic", ["cells.train.num_step=7"])
    with pytest.raises(UsageError, match="write PART.section.key=value with PART of cells, pixels"):
        compare.read_parts("hep2_synthetic", ["train.num_steps=7"])


def test_points_lost_to_finding():
    systems = {
        "cells-true-network-prevalence": {"accuracy": 0.9, "mca": 0.8},
        "cells-otsu-network-prevalence": {"accuracy": 0.85, "mca": 0.82},
        "cells-otsu-own_svm-prevalence": {"accuracy": 0.1, "mca": 0.1},
        "pixels": {"accuracy": 0.5, "mca": 0.5},
    }
    assert compare.points_lost_to_finding(systems) == {"cells-otsu-network-prevalence": {"accuracy": 5.0, "mca": -2.0}}


def test_the_table_says_everything():
    result = {
        "protocol": "kfold, 7 folds pooled",
        "leakage_note": "no specimen on two sides",
        "networks": {"cells": "gao"},
        "systems": {"cells-otsu-network-prevalence": ROW},
        "points_lost_to_finding": {"cells-otsu-network-prevalence": {"accuracy": 4.0, "mca": 1.0}},
        "unavailable": {"forest": "not installed"},
        "missing_fields": ["s2: field 3 is not there; read from the other 3"],
    }
    lines = compare.render("made_up", result).splitlines()
    figures = "90.0 [80.0, 100.0] | 85.0 | +4.0 | 75.0 [50.0, 90.0] | 15.0 [-5.0, 30.0]"
    row = f"{figures} | – | 70.0 [60.0, 80.0] | – | 0.12 | 1 |"
    assert f"| `cells-otsu-network-prevalence` | single cells | {row}" in lines
    assert lines[-3:] == [
        "* left out by `cells-otsu-network-prevalence`: s1: no cell was found in it",
        "* `forest` was not run: not installed",
        "* s2: field 3 is not there; read from the other 3",
    ]


def test_a_run_from_end_to_end(command, data_dir, tmp_path):
    """Two systems with a network in common; run again, nothing is done twice and the figures are the same."""
    page = pathlib.Path(tmp_path / "page.md")
    page.write_text(
        "<!-- table compare_hep2_synthetic_specimens_tiny -->\n<!-- end compare_hep2_synthetic_specimens_tiny -->\n"
    )
    flags = [
        "--builder_config=specimens_tiny",
        f"--data_dir={data_dir}",
        f"--workdir={tmp_path / 'work'}",
        f"--write={page}",
        "--systems=cells-true-network-*",
        "--feature_network=resnet18",
        "--set=cells.train.num_steps=4",
        "--set=cells.train.global_batch_size=8",
        "--set=cells.evaluation.dihedral=false",
    ]
    done = command("scripts.compare_specimens", *flags)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert list(last["systems"]) == ["cells-true-network-prevalence", "cells-true-network-mean_probability"]
    assert last["specimen_leakage"] is False
    assert "| `cells-true-network-prevalence` | single cells |" in page.read_text()
    work = tmp_path / "work" / "hep2_synthetic_specimens_tiny"
    assert (work / "division-00" / "network-gao" / "config.json").exists()
    assert json.loads((work / "figures.json").read_text())["networks"]["features"] == "resnet18"
    again = command("scripts.compare_specimens", *flags)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == last
    assert "division-00" not in again.stdout
