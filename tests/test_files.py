"""Files that appear complete or not at all."""

import errno
import json

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
