"""Small made-up images with none, one or two patterns: dots that are fine, or coarse and soft, or both."""

from collections.abc import Sequence

import cv2
import numpy as np

from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.images import ImageSet, LabelledImage

CLASSES = ("fine", "coarse", "absent")
_SIGMAS, _SHARES = (1.0, 6.0), (0.06, 0.4)


def picture(patterns: Sequence[int], seed: int, size: int = 64) -> np.ndarray:
    """uint8 [size, size]; the dots of two patterns add up."""
    rng = np.random.default_rng(seed)
    grey = 20 + rng.normal(0, 1, (size, size))
    for k in patterns:
        noise = cv2.GaussianBlur(rng.normal(size=grey.shape), (0, 0), _SIGMAS[k], borderType=cv2.BORDER_REFLECT)
        dots = (noise > np.quantile(noise, 1 - _SHARES[k])).astype(float)
        grey += 60 * cv2.GaussianBlur(dots, (0, 0), _SIGMAS[k] / 2, borderType=cv2.BORDER_REFLECT)
    return np.clip(grey, 0, 255).astype(np.uint8)


def image(number: int, patterns: Sequence[int], *, specimen: str = "", known: bool = True) -> LabelledImage:
    """Image `number` of the training split; its specimen is `s<number>` unless told."""
    pixels = picture(patterns, number)
    labels = np.zeros(len(CLASSES), np.float32)
    labels[list(patterns)] = 1
    return LabelledImage(
        identifier=f"image-{number}",
        specimen=specimen or f"s{number}",
        group=specimen or f"s{number}",
        split="train",
        intensity="positive" if patterns else "negative",
        image=pixels,
        tone_curve=np.array([*field_sets.grey_normalisation(pixels, DataConfig()), 1.0, 0.0], np.float32),
        patterns=labels,
        patterns_known=known,
    )


def image_set(kinds: Sequence[Sequence[int]] = ((0,), (1,), (0, 1), ()), repeats: int = 3) -> ImageSet:
    """`repeats` images of each kind, one after the other."""
    made = tuple(image(i, kinds[i % len(kinds)]) for i in range(repeats * len(kinds)))
    return ImageSet(name="dots", classes=CLASSES, images=made)
