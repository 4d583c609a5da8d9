"""Files that appear complete or not at all."""

import errno
import json
import pathlib

import numpy as np
import pytest

from hep2jax import files


def test_json_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "report" / "metrics.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def write():
        with files.replaced(path) as unfinished:
            unfinished.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        write()
    assert files.is_disk_full(error.value)
    assert [found.name for found in tmp_path.iterdir()] == ["weights.bin"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("text", [None, b"", b"[1]", b"\xff", b"[" * 100_000, b"9" * 5000, b"PK\x03\x04"])
def test_what_is_damaged_counts_as_not_kept(text: bytes | None, tmp_path):
    if text is not None:
        (tmp_path / "kept").write_bytes(text)
    assert files.kept(tmp_path / "kept") == {}
    assert files.kept_arrays(tmp_path / "kept") == {}


def test_what_is_kept_comes_back(tmp_path):
    files.write_json(tmp_path / "kept.json", {"a": [1]})
    assert files.kept(tmp_path / "kept.json") == {"a": [1]}
    np.savez(tmp_path / "kept.npz", a=np.arange(3))
    np.testing.assert_array_equal(files.kept_arrays(tmp_path / "kept.npz")["a"], np.arange(3))


def test_a_pickle_among_the_arrays_is_not_run(tmp_path):
    np.savez(tmp_path / "kept.npz", a=np.array([pathlib.Path("x")], object), allow_pickle=True)
    assert files.kept_arrays(tmp_path / "kept.npz") == {}


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.EDQUOT, "quota"), True),
        (RuntimeError("RESOURCE: write failed: No space left on device"), True),  # as Orbax passes it on
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("no such pattern"), False),
    ],
)
def test_what_a_full_disk_looks_like(error: Exception, is_full: bool):
    assert files.is_disk_full(error) == is_full
