"""Configurations by name: where they are looked for, their argument, the files beside them."""

import pytest

from hep2jax import config_files
from hep2jax.errors import UsageError

SEEDED = "from hep2jax.config import Config\n\n\ndef get_config(seed='0'):\n    return Config(seed=int(seed))\n"
SIBLING = "from . import seeded\n\n\ndef get_config():\n    return seeded.get_config('3')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["icpr2012", "icpr2012.py", "configs/icpr2012.py", "fcn:icpr2012"])
def test_shipped_ones_are_found_from_anywhere(name: str, folder):
    assert config_files.load(name).data.name == "icpr2012"


def test_files_of_the_working_directory_come_first(folder):
    (folder / "configs" / "fcn.py").write_text(SEEDED.replace("'0'", "'1'"))
    assert [config_files.load(name).seed for name in ("fcn", "fcn.py", "configs/fcn.py", "configs/fcn")] == [1] * 4
    (folder / "fcn.py").write_text(SEEDED.replace("'0'", "'2'"))
    assert [config_files.load(name).seed for name in ("fcn", "fcn.py", "configs/fcn.py")] == [2, 2, 1]


def test_the_argument_after_a_colon_and_files_beside_it(folder):
    (folder / "seeded.py").write_text(SEEDED)
    (folder / "sibling.py").write_text(SIBLING)
    assert config_files.load("seeded:7").seed == 7
    assert config_files.load(f"{folder}/seeded.py:8").seed == 8
    assert config_files.load("sibling").seed == 3
    with pytest.raises(UsageError, match="takes no argument"):
        config_files.load("sibling:7")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no function get_config"), ("def get_config():\n    return 3\n", "does not return a hep2jax Config")],
)
def test_a_file_that_makes_no_configuration(text: str, message: str, folder):
    (folder / "mine.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        config_files.load("mine")


def test_no_such_file_names_the_nearest(folder):
    for name in ("unett", "configs/unett.py"):
        with pytest.raises(UsageError, match=f"--config={name}: no such file; .* is 'unet'"):
            config_files.load(name)
    with pytest.raises(UsageError, match="no such file"):
        config_files.load("elsewhere/unet.py")


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("configs/fcn.py", "fcn"),
        ("fcn", "fcn"),
        ("configs/resnet.py:published", "resnet-published"),
        ("a/b.py:x=1, y", "b-x-1-y"),
    ],
)
def test_the_name_of_a_run(name: str, run: str):
    assert config_files.run_name(name) == run
