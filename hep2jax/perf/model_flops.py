"""Counts the FLOPs of a training step of the published network, independent of the formulation that is executed."""

import dataclasses

import jax
import jax.numpy as jnp

from hep2jax import ops, tasks
from hep2jax.config import Config
from hep2jax.training import optimizers, packing, steps
from hep2jax.training import state as states


def model_flops(config: Config, num_outputs: int, images: int) -> float:
    """FLOPs of one training step: 2 for each multiply-add of a convolution or matrix product, 1 for other operations.

    They are counted in the plain formulation of the network, on crops that are cut on the host. Formulations for a
    specific platform compute more: those with columns side by side or blocks multiply zeros, and crops that are cut on
    the device multiply interpolation weights. With this count, utilisation is comparable across platforms.

    Args:
        config: configuration of the run.
        num_outputs: number of output channels of the network.
        images: `train.global_batch_size`, or the share of one device.
    """
    config = dataclasses.replace(
        config,
        seed=0,
        data=dataclasses.replace(config.data, warp="host", fold=0),
        train=dataclasses.replace(config.train, steps_per_call=1),
    )
    key = repr((config, num_outputs, images))
    if key not in _counted:
        _counted[key] = _count(config, num_outputs, images)
    return _counted[key]


_counted: dict[str, float] = {}
"""Counts of this process: the folds of a cross-validation have one step, which takes seconds to trace."""


def _count(config: Config, num_outputs: int, images: int) -> float:
    kind, network = tasks.kind(config), states.make_network(config, num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = jax.eval_shape(packing.pack, states.fresh_shapes(network, optimizer))
    constants = {"class_weights": jax.ShapeDtypeStruct((num_outputs,), jnp.float32)}
    # Only the CPU backend can analyse a program that is not compiled. JAX lowers some operations differently on each
    # platform, so the platform is fixed: the count is the same on every machine.
    with ops.target(ops.PLAIN), jax.default_device(jax.local_devices(backend="cpu")[0]):
        traced = jax.jit(steps.make_train_step(config, network, kind.loss)).trace(
            state, kind.batch_shapes(config, images), constants
        )
        analysis = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert analysis is not None
    return analysis["flops"]
