"""Devices, shardings and what this process owns of a batch."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from hep2jax.errors import UsageError

DATA_AXIS = "data"

Rows = slice | Int[np.ndarray, " row"]
"""Numbers of rows in a global batch, ascending; a slice where no number is left out between them."""

ALL_ROWS = slice(None)


def make_mesh() -> Mesh:
    """All devices of all processes on one axis, in the order that suits the interconnect: not always by process."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """First axis divided over the devices; `stacked`: the second one, behind the batches of several steps."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS) if stacked else PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divides(key: str, global_batch_size: int) -> None:
    """UsageError unless the batch divides evenly over all devices."""
    devices = jax.device_count()
    if global_batch_size % devices:
        lower = global_batch_size // devices * devices
        near = f"{lower} or {lower + devices}" if lower else f"{devices}"
        raise UsageError(f"{key}={global_batch_size} does not divide over {devices} devices; take {near}")


def local_rows(mesh: Mesh, global_batch_size: int) -> Rows:
    """The rows of a global batch that this process's devices hold: those that it makes and feeds.

    They need not follow one another: along the rings of a TPU's torus, the devices of several processes alternate.
    """
    shards = batch_sharding(mesh).addressable_devices_indices_map((global_batch_size,)).values()
    rows = np.sort(np.concatenate([np.arange(global_batch_size)[shard] for shard in shards]))
    first, end = int(rows[0]), int(rows[-1]) + 1
    return slice(first, end) if end - first == len(rows) else rows
