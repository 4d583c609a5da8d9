"""The other tutorials of docs/: their commands run as they stand there. `make tutorials` runs them."""

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import tutorials
from tests.conftest import REPOSITORY
from tests.tutorials import TINY, TINY_FIELDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(command, data_dir, tmp_path_factory) -> pathlib.Path:
    """Where all commands of the pages on a first network, an unknown specimen and a profile have run, in this order."""
    place = tmp_path_factory.mktemp("place")
    data = ["--config.data.builder_config=specimens_tiny", f"--config.data.data_dir={data_dir}", *TINY]
    for page in ("first-network.md", "unknown-specimen.md", "smaller-step.md"):
        for words in tutorials.commands(page):
            tutorials.run(command, words, place, [*data, *([] if "--config=cnn" in words else TINY_FIELDS)])
    return place


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_first_network_is_trained_and_reads(place):
    for run in ("first", "longer"):
        assert (place / "runs" / run / "report" / "index.html").is_file()
    assert len(_rows(place / "readings" / "predictions.csv")) == len(_rows(place / "example" / "labels.csv")) == 12


def test_an_unknown_specimen_is_read_by_two_networks(place):
    wanted = [row["specimen"] for row in _rows(place / "unknown" / "labels.csv")]
    read = _rows(place / "unknown-readings" / "specimens.csv")
    assert sorted(row["specimen"] for row in read) == sorted(wanted)
    by_cells = _rows(place / "unknown-by-cells" / "predictions.csv")
    assert len(by_cells) == len(wanted)
    assert {"verdict", "pattern"} <= set(by_cells[0])


def test_steps_are_profiled(place):
    for name in ("profile", "profile-narrow"):
        profiled = json.loads((place / "runs" / name / "profile" / "profile.json").read_text())
        assert profiled
        assert "Slowest operations" in (place / "runs" / name / "profile" / "profile.html").read_text()


def test_a_model_is_added_by_the_files_of_the_page(data_dir, tmp_path):
    """In a copy of the sources: the two files and the line of the page, then its two commands."""
    for folder in ("hep2jax", "configs", "tests", "tfds_builders", "scripts"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    page = (REPOSITORY / "docs" / "add-a-model.md").read_text()
    network, configuration = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "hep2jax" / "models" / "mynet.py").write_text(network)
    (tmp_path / "configs" / "mynet.py").write_text(configuration)
    listed = tmp_path / "hep2jax" / "models" / "__init__.py"
    text, added = re.subn(r"^(CLASSIFIERS: .*\{\n)", r'\1    "mynet": MyNet,\n', listed.read_text(), flags=re.MULTILINE)
    assert added == 1
    listed.write_text(
        text.replace("from hep2jax.models.mil", "from hep2jax.models.mynet import MyNet\nfrom hep2jax.models.mil")
    )
    tests, train = tutorials.commands("add-a-model.md")
    data = ["--config.data.builder_config=specimens_tiny", f"--config.data.data_dir={data_dir}", *TINY]
    for words in ([*tests, "-p", "no:cacheprovider"], [*train, *data]):
        line = [sys.executable, *words[1:]]
        settings = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(line, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "mynet" / "report" / "index.html").is_file()
