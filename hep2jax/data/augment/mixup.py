"""Mixup: training on blends of two examples (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018)."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

_STREAM = zlib.crc32(b"mixup")  # keeps these random numbers independent of the step's others


class Blend(NamedTuple):
    """How the examples of one batch are blended.

    Attributes:
        share: weight of each example in its blend, in [0, 1]; its partner has the rest.
        partner: index in the (global) batch of the example that each example is blended with.
    """

    share: Float[Array, ""]
    partner: Int[Array, " batch"]

    def images(self, images: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The blended images."""
        return self.share * images + (1 - self.share) * images[self.partner]

    def loss(self, of_labels: Callable[[Any], Array], labels: Any) -> Array:
        """The blended loss, of each example's own labels and of its partner's; `of_labels` is the loss for labels."""
        partners = jax.tree.map(lambda leaf: leaf[self.partner], labels)
        return self.share * of_labels(labels) + (1 - self.share) * of_labels(partners)


def draw(key: Array, alpha: float, count: int) -> Blend:
    """Draw one share for the batch, from Beta(alpha, alpha), and a random partner for each example."""
    share_key, partner_key = jax.random.split(jax.random.fold_in(key, _STREAM))
    return Blend(jax.random.beta(share_key, alpha, alpha), jax.random.permutation(partner_key, count))
