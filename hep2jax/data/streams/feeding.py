"""Transfers between host and devices.

A thread turns host batches into sharded global arrays ahead of the training step, and results are fetched while the
next batches are already being computed.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import grain
import jax

from hep2jax import mesh as meshes
from hep2jax import stopping
from hep2jax.data.streams import packed
from hep2jax.data.streams.packed import Packed

DeviceBatch = dict[str, jax.Array]

Output = TypeVar("Output")

IN_FLIGHT = 2
"""Number of batches that are dispatched after the one whose results are being fetched: the devices never wait for the
host, and hold no more batches than these."""


def put(batch: Any, mesh: jax.sharding.Mesh, *, stacked: bool = False) -> Any:
    """Make global arrays on the devices from this process's rows (`mesh.local_rows`, in order). Does not block.

    Args:
        batch: host arrays by name, or packed. In arrays with several entries for each row (`mil`), the entries of a row
            are adjacent.
        mesh: the devices.
        stacked: see `mesh.batch_sharding`.

    Returns:
        The same with arrays of the devices.
    """
    return jax.make_array_from_process_local_data(meshes.batch_sharding(mesh, stacked=stacked), batch)


def prefetched(
    batches: grain.MapDataset, mesh: jax.sharding.Mesh, ahead: int, *, stack: int = 1
) -> grain.DatasetIterator[Packed]:
    """Iterate over device batches, packed; one thread prepares up to `ahead`. Close the iterator to end the thread.

    With `stack` > 1, every element holds that many batches, stacked along a new first axis.
    """
    # No read threads: OpenCV releases the GIL, so one thread works in parallel with the step, keeps the order of the
    # batches, and leaves the other cores free.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    stacked = stack > 1
    batches = batches.map(packed.pack)
    source = batches.batch(stack, drop_remainder=True) if stacked else batches
    stream = source.to_iter_dataset(options).map(lambda batch: put(batch, mesh, stacked=stacked))
    return grain.experimental.ThreadPrefetchIterDataset(stream, prefetch_buffer_size=ahead).__iter__()


def fetched(outputs: Iterable[Output]) -> Iterator[Output]:
    """The outputs as arrays on the host, in order. Iterating over `outputs` dispatches the work to the devices.

    Raises:
        Stopped: the command was asked to stop (see `stopping.check`).
    """
    waiting = collections.deque[Output]()
    for output in outputs:
        stopping.check()
        waiting.append(output)
        if len(waiting) > IN_FLIGHT:
            yield jax.device_get(waiting.popleft())
    while waiting:
        yield jax.device_get(waiting.popleft())
