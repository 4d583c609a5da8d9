"""Photometric jitter of the grey-level map of an example (see `steps.normalise`)."""

import numpy as np
from jaxtyping import Float, Float32

from hep2jax.config import AugmentConfig


def jitter_greys(
    draws: Float[np.ndarray, "3 ..."], greys: Float[np.ndarray, "... 4"], augment: AugmentConfig
) -> Float32[np.ndarray, "... 4"]:
    """Greys (offset, gain, exponent, shift) with random gain, exponent and shift; `draws` are uniform in [-1, 1]."""
    gain, gamma, shift = draws
    offset, plain_gain, exponent, plain_shift = np.moveaxis(greys, -1, 0)
    jittered = (
        offset,
        plain_gain * np.exp(augment.gain * gain),
        exponent * np.exp(augment.gamma * gamma),
        plain_shift + augment.offset * shift,
    )
    return np.stack(jittered, axis=-1).astype(np.float32)
