"""`python -m tests.product`: the analysis of a product on the devices that there are, for `test_timing`."""

import dataclasses
import json

import jax
import jax.numpy as jnp

from hep2jax.training import timing
from hep2jax.training.timing import Program


def analyse() -> Program:
    """Batch [128, 256] over all devices, times a weight [256, 64] that all have."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, every = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axis)) for axis in ("data", None))
    left = jax.ShapeDtypeStruct((128, 256), jnp.float32, sharding=rows)
    right = jax.ShapeDtypeStruct((256, 64), jnp.float32, sharding=every)
    return timing.analyse(jax.jit(jnp.matmul).lower(left, right).compile(), 2 * 128 * 256 * 64)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(analyse())))
