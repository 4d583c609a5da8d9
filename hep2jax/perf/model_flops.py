"""The arithmetic of a training step of the network as it is published, whatever formulation computes it."""

import dataclasses

import jax
import jax.numpy as jnp

from hep2jax import ops
from hep2jax.config import BAG_READERS, JOINT_READERS, SEGMENTERS, Config
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
    network = states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: packing.pack(states.fresh_state(network, optimizer, key)), key)
    constants = {"class_weights": jax.ShapeDtypeStruct((num_outputs,), jnp.float32)}
    # Of the backends only the CPU's counts what is not compiled; the platform that is lowered for is the same on every
    # machine, as JAX has several formulations of some operations, too.
    with ops.target(ops.PLAIN), jax.default_device(jax.local_devices(backend="cpu")[0]):
        traced = jax.jit(steps.make_train_step(config, network)).trace(state, batch_shapes(config, images), constants)
        analysis = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def batch_shapes(config: Config, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What the stream of the configured task makes: fields with a label a pixel, cells or bags with one label.

    Images of several patterns, too, are given one label: the losses differ by a few numbers a bag.
    """
    name, side = config.model.name, config.data.crop_size
    images = batch * config.data.bag_tiles if name in BAG_READERS else batch
    labels = ((batch, side, side), jnp.uint8) if name in SEGMENTERS + JOINT_READERS else ((batch,), jnp.int32)
    shapes = {"image": ((images, side, side), jnp.uint8), "labels": labels, "greys": ((images, 4), jnp.float32)}
    if name in JOINT_READERS:
        shapes |= {"patterns": ((batch,), jnp.int32), "grades": ((batch,), jnp.int32)}
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
