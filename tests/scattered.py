"""`python -m tests.scattered`: `hep2jax.main` on a mesh that is not in order of process, as on the torus of a TPU."""

import jax
import numpy as np

from hep2jax import cli, main
from hep2jax import mesh as meshes


def make_mesh() -> jax.sharding.Mesh:
    """All devices, the last first; those of two processes take turns."""
    devices = jax.devices()
    turned = np.array([*devices[::2], *devices[1::2]][::-1])
    return jax.sharding.Mesh(turned, (meshes.DATA_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


if __name__ == "__main__":
    main.define_flags()
    meshes.make_mesh = make_mesh
    cli.run_app(main.main)
