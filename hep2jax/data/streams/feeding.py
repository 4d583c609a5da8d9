"""Host batches → sharded global arrays, made ahead of the step by a thread; and results back, a few steps behind."""

import collections
from collections.abc import Iterable, Iterator
from typing import TypeVar

import grain
import jax
import numpy as np

from hep2jax import mesh as meshes

DeviceBatch = dict[str, jax.Array]

Output = TypeVar("Output")

IN_FLIGHT = 2
"""Batches that a forward pass is given ahead of the one whose results are awaited: the devices never wait for the host,
and hold no more than these."""


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh, *, stacked: bool = False) -> DeviceBatch:
    """This process's rows (`mesh.local_rows`, in order) → its shards of the global arrays. Does not block.

    `stacked`: see `mesh.batch_sharding`. Where an array has several entries a row (`mil`), they follow one another.
    """
    return jax.make_array_from_process_local_data(meshes.batch_sharding(mesh, stacked=stacked), batch)


def prefetched(
    batches: grain.MapDataset, mesh: jax.sharding.Mesh, ahead: int, *, stack: int = 1
) -> grain.DatasetIterator[DeviceBatch]:
    """Iterate device batches; one thread prepares up to `ahead` of them. Close the iterator to end the thread.

    With `stack` > 1 every element holds that many batches, one behind the other on a new first axis.
    """
    # No read threads: OpenCV releases the GIL, and one thread ahead of the step keeps the order and the cores free.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    stacked = stack > 1
    source = batches.batch(stack, drop_remainder=True) if stacked else batches
    stream = source.to_iter_dataset(options).map(lambda batch: put(batch, mesh, stacked=stacked))
    return grain.experimental.ThreadPrefetchIterDataset(stream, prefetch_buffer_size=ahead).__iter__()


def fetched(outputs: Iterable[Output]) -> Iterator[Output]:
    """The same with arrays on the host, in order. `outputs` starts the work on the devices as it is iterated."""
    waiting = collections.deque[Output]()
    for output in outputs:
        waiting.append(output)
        if len(waiting) > IN_FLIGHT:
            yield jax.device_get(waiting.popleft())
    while waiting:
        yield jax.device_get(waiting.popleft())
