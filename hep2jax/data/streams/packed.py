"""The small arrays of a batch as one array of bytes, so that a batch reaches the devices in one or two transfers.

A transfer costs the host about as much for sixteen bytes as for a kilobyte. With crops that are cut on the devices, a
batch is nothing but small arrays: indices, matrices, tone curves, labels. `pack` joins them on the host, and the
training step takes them apart again with `unpack`.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGE = 1024
"""Arrays with rows of at least this many bytes, such as crops, stay as they are: joining them would copy them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where an array is in the rows of bytes."""

    name: str
    first: int
    """Its first byte in a row."""
    shape: tuple[int, ...]
    """The shape of what belongs to one row of the batch."""
    dtype: str

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.first + math.prod(self.shape) * np.dtype(self.dtype).itemsize


@functools.partial(jax.tree_util.register_dataclass, data_fields=("whole", "rows"), meta_fields=("places",))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch whose small arrays are joined."""

    whole: dict[str, Any]
    """The large arrays."""
    rows: Any
    """uint8 [..., rows, bytes]."""
    places: tuple[Place, ...]


def pack(batch: dict[str, np.ndarray]) -> Packed:
    """Join the small arrays of a batch. In arrays with several entries for each row, those of a row are adjacent."""
    count = min(len(array) for array in batch.values())
    whole, parts, places = dict[str, Any](), list[np.ndarray](), list[Place]()
    first = 0
    for name, array in batch.items():
        of_rows = np.ascontiguousarray(array).reshape(count, -1)
        if of_rows.shape[1] * array.itemsize >= LARGE:
            whole[name] = array
            continue
        shape = (len(array) // count, *array.shape[1:])
        places.append(Place(name=name, first=first, shape=shape, dtype=array.dtype.name))
        parts.append(of_rows.view(np.uint8))
        first = places[-1].end
    rows = np.concatenate(parts, axis=1) if parts else np.zeros((count, 0), np.uint8)
    return Packed(whole=whole, rows=rows, places=tuple(places))


def unpack(batch: Packed | dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The arrays as they were before `pack`; a batch that is not packed stays as it is."""
    if not isinstance(batch, Packed):
        return batch
    return batch.whole | {place.name: _array(batch.rows[..., place.first : place.end], place) for place in batch.places}


def _array(rows: jax.Array, place: Place) -> jax.Array:
    *steps, count, _ = rows.shape
    (entries, *rest), dtype = place.shape, np.dtype(place.dtype)
    shape = (*steps, count * entries, *rest)
    if dtype == np.bool_:
        return rows.reshape(shape) != 0
    if dtype.itemsize == 1:
        return lax.bitcast_convert_type(rows.reshape(shape), jnp.dtype(dtype))
    return lax.bitcast_convert_type(rows.reshape((*shape, dtype.itemsize)), jnp.dtype(dtype))
