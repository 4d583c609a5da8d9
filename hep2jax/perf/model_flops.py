"""The arithmetic of a training step of the network as it is published, whatever formulation computes it."""

import dataclasses

import jax
import jax.numpy as jnp

from hep2jax import ops, tasks
from hep2jax.config import Config
from hep2jax.training import optimizers, packing, steps
from hep2jax.training import state as states


def model_flops(config: Config, num_outputs: int, images: int) -> float:
    """Operations of one training step: 2 for each multiply-add of a convolution or matrix product, 1 for others.

    They are counted in the plain formulation of the network on crops that the host has cut. Formulations for one
    platform compute more: columns side by side and blocks multiply zeros, crops that are cut on the device multiply
    interpolation weights. So figures of speed that divide by these operations compare across platforms.

    Args:
        config: of the run.
        num_outputs: channels of the network's output.
        images: `train.global_batch_size`, or one device's share of it.
    """
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, warp="host"),
        train=dataclasses.replace(config.train, steps_per_call=1),
    )
    kind, network = tasks.kind(config), states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: packing.pack(states.fresh_state(network, optimizer, key)), key)
    constants = {"class_weights": jax.ShapeDtypeStruct((num_outputs,), jnp.float32)}
    # Of the backends only the CPU's counts what is not compiled; the platform that is lowered for is the same on every
    # machine, as JAX has several formulations of some operations, too.
    with ops.target(ops.PLAIN), jax.default_device(jax.local_devices(backend="cpu")[0]):
        traced = jax.jit(steps.make_train_step(config, network, kind.loss)).trace(
            state, kind.batch_shapes(config, images), constants
        )
        analysis = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert analysis is not None
    return analysis["flops"]
