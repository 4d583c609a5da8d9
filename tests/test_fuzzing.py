"""Files that others wrote are read, or refused by one line: a few dozen damaged ones of each kind."""

import pathlib
import tempfile

import pytest

from tests import fuzzing

with tempfile.TemporaryDirectory() as _folder:
    READERS = fuzzing.readers(pathlib.Path(_folder))
SLOW = {"xls": 6, "xlsx": 6, "metrics.jsonl": 12, "config.json of a report": 12}
"""Numbers of examples where one takes long."""


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(name: str, tmp_path: pathlib.Path):
    reader = READERS[name]
    for number, data in enumerate(reader.good):
        assert reader.try_on(data, tmp_path / str(number)) == ""


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_by_one_line(name: str, capfd):
    reader = READERS[name]

    def attempt(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            assert "\n" not in reader.try_on(data, pathlib.Path(folder))

    fuzzing.try_damaged(reader, attempt, SLOW.get(name, 40))
    assert capfd.readouterr().err == ""
