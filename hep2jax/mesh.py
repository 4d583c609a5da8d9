"""Devices, shardings and what this process owns of a batch."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hep2jax.errors import UsageError

DATA_AXIS = "data"


def make_mesh() -> Mesh:
    """All devices of all processes on one axis."""
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


def process_rows(global_batch_size: int) -> slice:
    """The rows of a global batch that this process feeds."""
    rows = global_batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
