"""Mixup: training on blends of two examples (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018)."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

_STREAM = zlib.crc32(b"mixup")  # apart from the step's other random numbers


class Blend(NamedTuple):
    """How the examples of one batch are blended.

    Attributes:
        share: of each example in its blend, in [0, 1]; the rest is its partner's.
        partner: which example of the (global) batch each is blended with.
    """

    share: Float[Array, ""]
    partner: Int[Array, " batch"]

    def images(self, images: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The blended images."""
        return self.share * images + (1 - self.share) * images[self.partner]

    def loss(self, of_labels: Callable[[Any], Array], labels: Any) -> Array:
        """The blend of the losses with each example's own labels and with its partner's."""
        partners = jax.tree.map(lambda leaf: leaf[self.partner], labels)
        return self.share * of_labels(labels) + (1 - self.share) * of_labels(partners)


def draw(key: Array, alpha: float, count: int) -> Blend:
    """One share for the batch, of the distribution Beta(alpha, alpha), and a random partner for each example."""
    share_key, partner_key = jax.random.split(jax.random.fold_in(key, _STREAM))
    return Blend(jax.random.beta(share_key, alpha, alpha), jax.random.permutation(partner_key, count))
