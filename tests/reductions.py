"""`python -m tests.reductions`: how many all-reduces a training step of a network has on all devices.

Prints a JSON object: the number of all-reduces with statistics of the whole batch and of groups of two images, and by
how much the parameters after a step with groups differ from those of one device.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig, ModelConfig, TrainConfig
from hep2jax.tasks import CellTask
from hep2jax.training import optimizers, steps
from hep2jax.training import state as states

SIDE, ROWS, CLASSES = 32, 8, 3


def measure(norm_images: int, mesh: jax.sharding.Mesh) -> tuple[int, np.ndarray]:
    """The number of all-reduces of the compiled step, and all parameters after a step."""
    config = Config(
        data=DataConfig(name="hep2_synthetic", crop_size=SIDE),
        model=ModelConfig(name="vggcell", width=0.125, norm_images=norm_images),
        train=TrainConfig(num_steps=10, global_batch_size=ROWS),
    )
    network = states.make_network(config, CLASSES)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = jax.device_put(states.fresh_state(network, optimizer, jax.random.key(0)), meshes.replicated(mesh))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (ROWS, SIDE, SIDE)).astype(np.uint8),
        "labels": rng.integers(0, CLASSES, ROWS).astype(np.int32),
        "tone_curve": np.tile(np.array([20, 0.01, 1, 0], np.float32), (ROWS, 1)),
    }
    batch = jax.device_put(batch, meshes.batch_sharding(mesh))
    step = jax.jit(steps.make_train_step(config, network, CellTask.loss))
    program = step.lower(state, batch, {"class_weights": jnp.ones(CLASSES)}).compile()
    updated, _ = program(state, batch, {"class_weights": jnp.ones(CLASSES)})
    parameters = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(updated.params))])
    return program.as_text().count(" all-reduce("), parameters


def main() -> None:
    """Print what is found."""
    every, one = meshes.make_mesh(), jax.sharding.Mesh(jax.devices()[:1], (meshes.DATA_AXIS,))
    (whole, _), (groups, parameters), (_, alone) = measure(0, every), measure(2, every), measure(2, one)
    difference = float(np.abs(parameters - alone).max())
    print(json.dumps({"whole": whole, "groups": groups, "difference": difference}))


if __name__ == "__main__":
    main()
