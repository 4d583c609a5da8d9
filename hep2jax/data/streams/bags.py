"""Bags of crops from the fields of a specimen or from one image, for training without masks."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, UInt8
from typing_extensions import override

from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.sets.images import ImageSet
from hep2jax.data.sets.items import Item
from hep2jax.data.streams import canvases
from hep2jax.data.streams.stream import TONES, Batch, Crops, Plan, check_size
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import group_by


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bags:
    """Pictures, and which of them form a bag."""

    name: str
    """Name of the data set."""
    num_patterns: int
    pictures: Sequence[UInt8[np.ndarray, "_ _"]]
    """The pictures at working resolution."""
    picture_names: Sequence[str]
    """Names of the pictures, for messages."""
    tone_curve: Float[np.ndarray, "picture 4"]
    """Tone curve of each picture without jitter, see `steps.normalise`."""
    members: Sequence[Int[np.ndarray, " _"]]
    """Indices of the pictures of each bag."""
    items: Sequence[Item]
    """The bags as the sampler sees them."""
    labels: Int32[np.ndarray, " bag"] | Float32[np.ndarray, "bag pattern"]
    """The pattern of each bag; if bags may have several, 1 for each pattern that the bag has and 0 for the others."""


def from_specimens(fields: FieldSet, indices: Sequence[int]) -> Bags:
    """Bags that each hold all chosen fields of a specimen."""
    chosen = [fields.fields[i] for i in indices]
    members = _members(chosen)
    items = [fields.items[indices[positions[0]]] for positions in members]
    return Bags(
        name=fields.name,
        num_patterns=len(fields.classes),
        pictures=[field.working_image for field in chosen],
        picture_names=[field.name for field in chosen],
        tone_curve=np.array([[field.grey_offset, field.grey_gain, 1.0, 0.0] for field in chosen]),
        members=members,
        items=items,
        labels=np.array([item.pattern for item in items], np.int32),
    )


def from_images(images: ImageSet, indices: Sequence[int]) -> Bags:
    """Bags that each hold one chosen image, with zero, one or several patterns.

    Raises:
        UsageError: none of the images has a pattern.
    """
    chosen, items = [images.images[i] for i in indices], images.items
    labels = np.array([image.patterns for image in chosen], np.float32).reshape(-1, len(images.classes))
    if chosen and not labels.any():
        raise UsageError(f"{images.name}: none of the {len(chosen)} images to train on has a pattern")
    return Bags(
        name=images.name,
        num_patterns=len(images.classes),
        pictures=[image.image for image in chosen],
        picture_names=[image.identifier for image in chosen],
        tone_curve=np.array([image.tone_curve for image in chosen]),
        members=[np.array([position]) for position in range(len(chosen))],
        items=[items[i] for i in indices],
        labels=labels,
    )


class BagPlan(Plan):
    """Bags of `data.bag_tiles` crops each, one after the other. In addition to the crops, batches hold

    labels   int32   [rows]               pattern of the bag, or float32 [rows, patterns], 1 for each that it has

    Each crop has its own position, anywhere in any picture of the bag, and its own matrix. All crops of a bag share the
    jitter of the tone curve, because a specimen has one exposure.
    """

    def __init__(self, config: Config, bags: Bags) -> None:
        """Plan batches of these bags.

        Raises:
            UsageError: there is no bag, or an image is smaller than the crop.
        """
        if not bags.members:
            raise UsageError(f"{bags.name}: no image to train on under data.protocol={config.data.protocol}")
        for name, picture in zip(bags.picture_names, bags.pictures, strict=True):
            check_size(name, picture, config.data.crop_size)
        self.config = config
        self.items, self.pictures, self.tone_curve = bags.items, bags.pictures, bags.tone_curve
        self.origins = np.zeros((len(bags.pictures), 2), np.float32)
        self._bags = bags
        self._shapes = np.array([picture.shape for picture in bags.pictures])

    @override
    def draw(self, rng: np.random.Generator, chosen: Int[np.ndarray, " example"]) -> Crops:
        bags = [self._draw_bag(rng, self._bags.members[i]) for i in chosen]
        return Crops(
            picture=np.concatenate([bag.picture for bag in bags]),
            centre=np.concatenate([bag.centre for bag in bags]),
            geometry=np.concatenate([bag.geometry for bag in bags], axis=1),
            tone=np.concatenate([bag.tone for bag in bags], axis=1),
        )

    @override
    def labels(self, chosen: Int[np.ndarray, " example"]) -> Batch:
        return {"labels": self._bags.labels[chosen]}

    @override
    def frequencies(self, shares: Float64[np.ndarray, " example"]) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern among the patterns of the drawn bags; a bag with two patterns counts for both."""
        labels = self._bags.labels
        present = labels if labels.ndim == 2 else np.eye(self._bags.num_patterns)[labels]
        counts = shares @ present
        return counts / counts.sum()

    @override
    def make_store(self) -> tuple[canvases.Store, np.ndarray]:
        margin = canvases.margin(self.config)
        return {"pictures": canvases.with_margin(self.pictures, margin)}, self.origins + np.float32(margin)

    def _draw_bag(self, rng: np.random.Generator, members: Int[np.ndarray, " picture"]) -> Crops:
        tiles, size = self.config.data.bag_tiles, self.config.data.crop_size
        picture = members[rng.integers(len(members), size=tiles)]
        draws = rng.random((tiles, 2 + len(geometry.GEOMETRY))).T
        centre = size / 2 + draws[:2].T * (self._shapes[picture] - size)
        tone = np.repeat(rng.random((TONES, 1)), tiles, axis=1)
        return Crops(picture=picture, centre=centre[:, ::-1], geometry=draws[2:], tone=tone)


def _members(fields: Sequence[Field]) -> list[np.ndarray]:
    """Positions of each specimen's fields in the list."""
    groups = group_by(range(len(fields)), lambda position: fields[position].specimen_id)
    return [np.array(members) for members in groups.values()]
