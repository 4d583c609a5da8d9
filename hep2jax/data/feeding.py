"""Host batches → sharded global arrays, made ahead of the step by a thread."""

import grain
import jax
import numpy as np

from hep2jax import mesh as meshes

DeviceBatch = dict[str, jax.Array]


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh, *, stacked: bool = False) -> DeviceBatch:
    """This process's rows → its shards of the global arrays. Does not block. `stacked`: see `mesh.batch_sharding`."""
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
