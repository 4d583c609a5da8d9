"""The five commands of docs/your-own-folder.md, as they stand there, with a tiny network in place of the full one.

Those for cells are in the default lane. Those for fields compile for longer; `make tutorials` runs them.
"""

import csv
import json
import re
import shlex

import pytest

from tests import tutorials
from tests.tutorials import TINY, TINY_FIELDS


def tutorial(kind):
    """The commands as lists of words; those for cells as the text below the commands says."""
    commands = tutorials.commands("your-own-folder.md")
    if kind == "cells":
        commands[0].append("--kind=cells")
        commands[1].append("--builder_config=cells")
        for command in commands[2:4]:
            command[command.index("--config=folder")] = "--config=folder:cells"
    return commands


@pytest.fixture(scope="module", params=["cells", pytest.param("specimens", marks=pytest.mark.slow)])
def said(request, command, tmp_path_factory):
    """The folder of a run of the five commands, their words, and what each printed."""
    kind, place = request.param, tmp_path_factory.mktemp("mine")
    tiny = [*TINY, "--config.data.num_folds=2", f"--config.data.data_dir={place / 'data'}"]
    tiny += TINY_FIELDS if kind == "specimens" else []
    return kind, place, [tutorials.run(command, words, place, tiny) for words in tutorial(kind)]


def test_the_check_prints_the_commands_of_the_page(said):
    kind, place, (_, checked, *_) = said
    printed = [shlex.split(line.replace(f"{place}/", "")) for line in checked.splitlines()[-2:]]
    wanted = tutorial(kind)[2:4]
    if kind == "cells":  # their size in pixels does not matter to the network
        wanted = [[word for word in words if not re.search("scale|diameter", word)] for words in wanted]
    assert printed == wanted


def test_a_report_of_specimens_held_out_is_written(said):
    kind, place, (made, _, trained, crossed, _) = said
    assert made.endswith(f"of 12 specimens in {place}/example\n")
    assert "folder: kfold, by specimen, fold 1 of 2" in trained
    assert (place / "runs" / "mine" / "report" / "index.html").is_file()
    figures = json.loads((place / "runs" / "mine" / "report" / "metrics.json").read_text())["test"]
    assert figures["classes"] == ["centromere", "homogeneous", "nuclear_membrane"]
    assert figures["specimen_leakage"] is False
    pooled = json.loads(crossed.splitlines()[-1])
    assert (pooled["protocol"], pooled["specimen_leakage"]) == ("kfold, 2 folds pooled", False)


def test_every_image_is_read(said):
    _, place, _ = said
    with (place / "readings" / "predictions.csv").open(newline="") as file:
        read = {row["image"]: row["pattern"] for row in csv.DictReader(file)}
    with (place / "example" / "labels.csv").open(newline="") as file:
        assert read.keys() == {f"{place}/example/{row['image']}" for row in csv.DictReader(file)}
