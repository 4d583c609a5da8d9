"""Host batches → sharded global arrays, made ahead of the step by a thread."""

import grain
import jax
import numpy as np

from hep2jax import mesh as meshes

DeviceBatch = dict[str, jax.Array]


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> DeviceBatch:
    """This process's rows → its shards of the global arrays. Does not block."""
    return jax.make_array_from_process_local_data(meshes.batch_sharding(mesh), batch)


def prefetched(batches: grain.MapDataset, mesh: jax.sharding.Mesh, ahead: int) -> grain.DatasetIterator[DeviceBatch]:
    """Iterate device batches; one thread prepares up to `ahead` of them. Close the iterator to end the thread."""
    # No read threads: OpenCV releases the GIL, and one thread ahead of the step keeps the order and the cores free.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    stream = batches.to_iter_dataset(options).map(lambda batch: put(batch, mesh))
    return grain.experimental.ThreadPrefetchIterDataset(stream, prefetch_buffer_size=ahead).__iter__()
