"""Photometric jitter of the grey-level map of an example (see `steps.normalise`)."""

import numpy as np
from jaxtyping import Float, Float32

from hep2jax.config import AugmentConfig


def jitter_greys(
    draws: Float[np.ndarray, "3 ..."], greys: Float[np.ndarray, "... 4"], augment: AugmentConfig
) -> Float32[np.ndarray, "... 4"]:
    """Greys (offset, gain, exponent, shift) with random gain, exponent and shift; `draws` are uniform in [-1, 1]."""
    gain, gamma, shift = draws
    jittered = greys.astype(np.float32)
    jittered[..., 1] = greys[..., 1] * np.exp(augment.gain * gain)
    jittered[..., 2] = greys[..., 2] * np.exp(augment.gamma * gamma)
    jittered[..., 3] = greys[..., 3] + augment.offset * shift
    return jittered
