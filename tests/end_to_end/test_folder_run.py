"""The five commands of docs/your-own-folder.md, as they stand there, with a tiny network in place of the full one."""

import csv
import json
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
        "--config.evaluation.dihedral=False",
    ],
    "cells": [],
}
TINY = ["--config.train.num_steps=2", "--config.train.global_batch_size=8", "--config.evaluation.batch_size=8"]


def tutorial(kind):
    """The commands as lists of words; those for cells as the text below the commands says."""
    page = (REPOSITORY / "docs" / "your-own-folder.md").read_text()
    lines = page.split("```")[1].replace("\\\n", "").strip().splitlines()
    words = [
        shlex.split(line.removeprefix(".venv/bin/").replace("folder:specimens", f"folder:{kind}")) for line in lines
    ]
    if kind == "cells":
        words[0].append("--kind=cells")
        words[1].append("--builder_config=cells")
    return words


@pytest.fixture(scope="module", params=KINDS)
def said(request, command, tmp_path_factory):
    """The folder of a run of the five commands, their words, and what each printed."""
    kind, place = request.param, tmp_path_factory.mktemp("mine")
    tiny = [*KINDS[kind], *TINY, f"--config.data.data_dir={place / 'data'}", "--config.data.num_folds=2"]
    said = []
    for words in tutorial(kind):
        module, *flags = words[2:] if words[0] == "python" else words
        flags = [flag.replace("runs/", f"{place}/runs/").replace("=example", f"={place}/example") for flag in flags]
        flags = [flag.replace("=readings", f"={place}/readings") for flag in flags]
        done = command(module, *flags, *(tiny if any(flag.startswith("--config=") for flag in flags) else ()))
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        said.append(done.stdout)
    return kind, place, said


def test_the_check_prints_the_commands_of_the_page(said):
    kind, place, (_, checked, *_) = said
    printed = [shlex.split(line.replace(f"{place}/", "")) for line in checked.splitlines()[-2:]]
    if kind == "specimens":
        assert printed == tutorial(kind)[2:4]
    else:
        assert [words[-2:] for words in printed] == [words[-1:] for words in tutorial(kind)[2:4]]


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
