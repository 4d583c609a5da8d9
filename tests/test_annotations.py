"""The checks of annotations: without the import hook of `tests/__init__.py`, none of these calls fails so."""

from collections.abc import Callable

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from hep2jax import metrics, ops
from hep2jax.data import tiles
from hep2jax.models import layers
from hep2jax.specimens import voting
from hep2jax.tasks import joint
from hep2jax.training import losses

WRONG_CALLS = {
    "metrics": lambda: metrics.connected_objects(np.zeros((2, 2, 1), bool)),
    "data": lambda: tiles.pad_to_tile(np.zeros((2, 2, 1), np.uint8), 4),
    "ops": lambda: ops.depth_to_space(jnp.zeros((2, 2, 4)), 2),
    "models": lambda: layers.global_average(jnp.zeros((2, 2, 4))),
    "specimens": lambda: voting.prevalent(np.zeros(2, int), np.zeros(3)),
    "tasks": lambda: joint.resize_mask(np.zeros((2, 2), np.uint8), (4, 4)),
    "training": lambda: losses.two_class_dice(jnp.zeros((2, 4, 4)), jnp.zeros((2, 4, 5), int)),
}
"""A call with an array of a wrong shape or dtype in each room whose annotations have arrays."""


@pytest.mark.parametrize("room", WRONG_CALLS)
def test_annotations_are_checked(room: str):
    call: Callable[[], object] = WRONG_CALLS[room]
    with pytest.raises(jaxtyping.TypeCheckError, match=rf"parameters of hep2jax\.{room}\."):
        call()
