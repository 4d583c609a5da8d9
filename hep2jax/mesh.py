"""The device mesh, shardings, and the rows of a batch that belong to this process."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from hep2jax.errors import UsageError

DATA_AXIS = "data"

Rows = slice | Int[np.ndarray, " row"]
"""Indices of rows in a global batch, ascending; a slice if they are contiguous."""

ALL_ROWS = slice(None)

_LONGEST_MESSAGE = 1000  # bytes; what is broadcast must have one size


def make_mesh() -> Mesh:
    """All devices of all processes on one axis, in the order that suits the interconnect.

    The devices of one process are therefore not always neighbours.
    """
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """Sharding that divides the first axis over the devices.

    With `stacked`, the first axis counts the batches of several steps, and the second one is divided.
    """
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS) if stacked else PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_chief(action: Callable[[], object]) -> None:
    """Let process 0 do something that may fail, while the others wait.

    Raises:
        UsageError: on every process, if it was raised on process 0; otherwise the others would wait for it for ever.
    """
    message = ""
    if jax.process_index() == 0:
        try:
            action()
        except UsageError as error:
            message = str(error)
    if jax.process_count() > 1:
        text = np.zeros(_LONGEST_MESSAGE, np.uint8)
        encoded = np.frombuffer(message.encode()[:_LONGEST_MESSAGE], np.uint8)
        text[: len(encoded)] = encoded
        message = bytes(multihost_utils.broadcast_one_to_all(text)).rstrip(b"\0").decode(errors="ignore")
    if message:
        raise UsageError(message)


def check_divides(key: str, global_batch_size: int) -> None:
    """Raise UsageError unless the batch size is a multiple of the number of devices."""
    devices = jax.device_count()
    if global_batch_size % devices:
        lower = global_batch_size // devices * devices
        near = f"{lower} or {lower + devices}" if lower else f"{devices}"
        raise UsageError(f"{key}={global_batch_size}: must be a multiple of the {devices} devices; take {near}")


def local_rows(mesh: Mesh, global_batch_size: int) -> Rows:
    """The rows of a global batch on the devices of this process, which are those that it makes and feeds.

    They need not be contiguous: along the rings of a TPU's torus, the devices of several processes alternate.
    """
    shards = batch_sharding(mesh).addressable_devices_indices_map((global_batch_size,)).values()
    rows = np.sort(np.concatenate([np.arange(global_batch_size)[shard] for shard in shards]))
    first, end = int(rows[0]), int(rows[-1]) + 1
    return slice(first, end) if end - first == len(rows) else rows
