"""Equal values have one fingerprint, and whatever differs has another."""

import dataclasses
import pathlib

import numpy as np
import pytest

from hep2jax.fingerprint import fingerprint
from hep2jax.specimens.systems import ImageNetFeatures


@dataclasses.dataclass
class _Example:
    pixels: np.ndarray
    name: str = "one"


def test_equal_values_have_one_fingerprint():
    one, other = (_Example(np.arange(4, dtype=np.uint8)) for _ in range(2))
    assert fingerprint(one, [1, 2]) == fingerprint(other, (1, 2))


@pytest.mark.parametrize(
    "value",
    [
        _Example(np.arange(4, dtype=np.uint8), "two"),
        _Example(np.arange(1, 5, dtype=np.uint8)),
        _Example(np.arange(4, dtype=np.int8)),
        _Example(np.arange(4, dtype=np.uint8).reshape(2, 2)),
    ],
)
def test_whatever_differs_has_another(value: _Example):
    assert fingerprint(value) != fingerprint(_Example(np.arange(4, dtype=np.uint8)))


def test_a_file_of_weights_counts_with_its_content(tmp_path: pathlib.Path):
    paths = [tmp_path / name for name in ("one.pth", "same.pth", "other.pth")]
    for path, content in zip(paths, (b"one", b"one", b"other"), strict=True):
        path.write_bytes(content)
    one, same, other = (fingerprint(ImageNetFeatures(weights=path)) for path in paths)
    assert one == same
    assert other not in (one, fingerprint(ImageNetFeatures()))
    with pytest.raises(OSError, match="nowhere"):
        fingerprint(ImageNetFeatures(weights=tmp_path / "nowhere.pth"))
