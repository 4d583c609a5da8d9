"""The five commands of docs/your-own-folder.md, as they stand there, with a tiny network in place of the full one.

Those for cells are in the default lane. Those for fields compile for longer; `.ci/run` runs them by a line of its own.
"""

import csv
import json
import re
import shlex

import pytest

from tests.conftest import REPOSITORY

KINDS = {
    "specimens": [
        "--config.model.name=unet",
        "--config.model.width=0.01",
        "--config.data.crop_size=32",
        "--config.evaluation.tile_size=64",
        "--config.evaluation.tile_overlap=16",
    ],
    "cells": [],
}
TINY = [
    "--config.train.num_steps=2",
    "--config.train.global_batch_size=8",
    "--config.evaluation.batch_size=8",
    "--config.evaluation.dihedral=False",
    "--config.data.num_folds=2",
]


def tutorial(kind):
    """The commands as lists of words; those for cells as the text below the commands says."""
    page = (REPOSITORY / "docs" / "your-own-folder.md").read_text()
    lines = page.split("```")[1].replace("\\\n", "").strip().splitlines()
    commands = [shlex.split(line.removeprefix(".venv/bin/")) for line in lines]
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
    tiny = [*KINDS[kind], *TINY, f"--config.data.data_dir={place / 'data'}"]
    said = []
    for words in tutorial(kind):
        module, *flags = words[2:] if words[0] == "python" else words
        flags = [re.sub("=(example|runs|readings)", rf"={place}/\1", flag) for flag in flags]
        done = command(module, *flags, *(tiny if any(flag.startswith("--config=") for flag in flags) else ()))
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        said.append(done.stdout)
    return kind, place, said


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
