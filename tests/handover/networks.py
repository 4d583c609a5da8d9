"""Networks that were not trained, with parameters by which they tell their inputs apart: fresh heads are zero."""

import jax
from flax import nnx

from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.training import state as states
from hep2jax.training.evaluation import Trained

CLASSES = ("homogeneous", "speckled", "nucleolar")


def stirred(config: Config, scale: float) -> Trained:
    """The network of a configuration, whose parameters are moved by random numbers of this scale."""
    config = tasks.resolve(config)
    network = states.make_network(config, tasks.num_outputs(config, CLASSES))

    def make(key: jax.Array) -> tuple:
        params, stats = map(nnx.to_pure_dict, nnx.split(network.build(key), nnx.Param, nnx.BatchStat)[1:])
        return jax.tree.map(lambda leaf: leaf + scale * jax.random.normal(key, leaf.shape), params), stats

    parameters = jax.jit(make)(jax.random.key(0, impl="rbg"))
    return Trained(
        config=config,
        classes=CLASSES,
        network=network,
        parameters=parameters,
        nuclear_size=None,
        calibration=None,
    )
