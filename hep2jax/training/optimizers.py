# pyright: reportMissingTypeStubs=false
"""Learning-rate schedule and optax transform of a configuration."""

import functools

import jax
import jax.numpy as jnp
import optax

from hep2jax.config import Frozen, OptimizerConfig

DEFAULT_WARMUP_STEPS = 20


def warmup_steps(config: OptimizerConfig, num_steps: int) -> int:
    """Steps of the linear warm-up in a run of `num_steps`, at most all of them."""
    return min(DEFAULT_WARMUP_STEPS if config.warmup_steps is None else config.warmup_steps, num_steps)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step: a linear warm-up, then constant or a cosine down to 1 % of the peak."""
    peak, warmup = config.learning_rate, warmup_steps(config, num_steps)
    if config.schedule == "constant":
        after_warmup = optax.constant_schedule(peak)
    else:
        after_warmup = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1), alpha=0.01)
    return optax.join_schedules([optax.linear_schedule(peak / max(warmup, 1), peak, warmup), after_warmup], [warmup])


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW or SGD with momentum. Weight decay applies to kernels, not to biases and norms.

    The same settings give the same object, so that programs with it can be shared.
    """
    return _optimizer(Frozen(config), num_steps)


@functools.lru_cache(maxsize=8)
def _optimizer(settings: Frozen[OptimizerConfig], num_steps: int) -> optax.GradientTransformation:
    config = settings.section
    schedule = make_schedule(config, num_steps)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "adamw":
        rule = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels)
    else:
        decay = optax.add_decayed_weights(config.weight_decay, mask=_kernels)
        rule = optax.chain(decay, optax.sgd(schedule, momentum=config.momentum))
    return optax.chain(clip, rule)


def _kernels(params: optax.Params) -> optax.Params:
    def is_kernel(leaf: jax.Array) -> bool:
        return jnp.ndim(leaf) > 1

    return jax.tree.map(is_kernel, params)
