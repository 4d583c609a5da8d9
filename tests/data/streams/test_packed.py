"""Small arrays of a batch travel as one array of bytes and come out as they went in."""

import jax
import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax.data.streams import feeding, packed


def _batch(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "image": rng.integers(0, 256, (rows * 3, 40, 40), np.uint8),  # three entries for each row, as for `mil`
        "tone_curve": rng.normal(size=(rows * 3, 2, 4)).astype(np.float32),
        "index": rng.integers(-9, 2**31 - 1, rows * 3).astype(np.int32),
        "labels": rng.random((rows, 5)) < 0.5,
        "grades": rng.integers(-128, 128, rows).astype(np.int8),
        "share": np.array([np.nan, -0.0, np.inf, 1e-40] * rows, np.float32)[:rows],
    }


def _assert_same(found: dict[str, jax.Array], batch: dict[str, np.ndarray]) -> None:
    assert found.keys() == batch.keys()
    for name, array in batch.items():
        assert found[name].dtype == array.dtype
        assert np.asarray(found[name]).tobytes() == array.tobytes(), name


@pytest.mark.parametrize("rows", [1, 4])
def test_arrays_come_out_as_they_went_in(rows: int):
    batch = _batch(rows)
    joined = packed.pack(batch)
    assert list(joined.whole) == ["image"]
    assert joined.rows.shape == (rows, 3 * 8 * 4 + 3 * 4 + 5 + 1 + 4)
    on_device = feeding.put(joined, meshes.make_mesh())
    assert len(jax.tree.leaves(on_device)) == 2
    _assert_same(jax.jit(packed.unpack)(on_device), batch)
    _assert_same(packed.unpack(batch), batch)


def test_batches_of_several_steps_are_stacked_as_they_are():
    batches = [_batch(4), _batch(4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(packed.pack, batches))

    def each(_, batch):
        return None, packed.unpack(batch)

    _, found = jax.lax.scan(each, None, feeding.put(stacked, meshes.make_mesh(), stacked=True))
    together = jax.jit(packed.unpack)(stacked)
    for step, batch in enumerate(batches):
        _assert_same({name: array[step] for name, array in found.items()}, batch)
        _assert_same({name: array[step] for name, array in together.items()}, batch)
