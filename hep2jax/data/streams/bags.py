"""The training stream of `mil`: bags of crops, of the fields of a specimen or of one image; no mask is looked at."""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, UInt8

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.augment.intensity import jitter_greys
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.sets.images import ImageSet
from hep2jax.data.sets.items import Item
from hep2jax.data.streams import canvases
from hep2jax.data.streams.fields import Batch, check_size
from hep2jax.data.streams.sampling import Sampler
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import group_by


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bags:
    """Pictures, and which of them make a bag."""

    name: str
    """Of the data set."""
    num_patterns: int
    pictures: Sequence[UInt8[np.ndarray, "height width"]]
    """At working resolution."""
    picture_names: Sequence[str]
    """For messages."""
    greys: Float[np.ndarray, "picture 4"]
    """Grey-level map of each picture without jitter, see `steps.normalise`."""
    members: Sequence[Int[np.ndarray, " _"]]
    """Places of each bag's pictures."""
    items: Sequence[Item]
    """Each bag as a sampler sees it."""
    labels: Int32[np.ndarray, " bag"] | Float32[np.ndarray, "bag pattern"]
    """What is learnt of each bag: its pattern, or 1 for each pattern that it has and 0 for the others."""


def of_specimens(fields: FieldSet, indices: Sequence[int]) -> Bags:
    """All chosen fields of a specimen are one bag."""
    chosen = [fields.fields[i] for i in indices]
    members = _members(chosen)
    items = [fields.items[indices[places[0]]] for places in members]
    return Bags(
        name=fields.name,
        num_patterns=len(fields.classes),
        pictures=[field.working_image for field in chosen],
        picture_names=[field.name for field in chosen],
        greys=np.array([[field.grey_offset, field.grey_gain, 1.0, 0.0] for field in chosen]),
        members=members,
        items=items,
        labels=np.array([item.pattern for item in items], np.int32),
    )


def of_images(images: ImageSet, indices: Sequence[int]) -> Bags:
    """Every chosen image is a bag, with none, one or several patterns.

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
        greys=np.array([image.greys for image in chosen]),
        members=[np.array([place]) for place in range(len(chosen))],
        items=[items[i] for i in indices],
        labels=labels,
    )


class BagStream:
    """Makes batches: `stream.batch(step)` has, with `data.bag_tiles` tiles in a bag,

    image    uint8   [rows * tiles, crop, crop]   one bag behind the other
    labels   int32   [rows]                       pattern of the bag, or float32 [rows, patterns], 1 for each it has
    greys    float32 [rows * tiles, 4]            grey-level map of each tile

    for the rows of this process. Each tile takes a place of its own, anywhere in any picture of the bag, and a
    crop-mirror-rotate matrix of its own; the photometric jitter is that of the bag, as a specimen is exposed once. With
    `data.warp=device` there are, instead of the image, `index` [rows * tiles] and `warp` [rows * tiles, 2, 3] as in
    `fields.FieldStream`.

    Raises UsageError where an image is smaller than the crop.
    """

    def __init__(self, config: Config, bags: Bags, *, rows: meshes.Rows = meshes.ALL_ROWS) -> None:
        self._config = config
        self._bags = bags
        self._rows = np.arange(config.train.global_batch_size)[rows]
        if not bags.members:
            raise UsageError(f"{bags.name}: no image to train on under data.protocol={config.data.protocol}")
        for name, picture in zip(bags.picture_names, bags.pictures, strict=True):
            check_size(name, picture, config.data.crop_size)
        self._sampler = Sampler(bags.items, config.data.balance, config.seed)
        self._margin = canvases.reach(config.data.crop_size, config.augment) - config.data.crop_size // 2
        self._store = self._make_store() if canvases.on_devices(config.data) else {}

    @property
    def store(self) -> canvases.Store:
        """Arrays that the devices keep; empty where crops are made on the host."""
        return self._store

    def _make_store(self) -> canvases.Store:
        pictures = self._bags.pictures
        return {"pictures": canvases.of_fields(pictures, pictures, self._margin)["pictures"]}

    def batch(self, step: int) -> Batch:
        """The rows of this process in the batch of `step`."""
        rng = np.random.default_rng((self._config.seed, step))
        count = self._config.train.global_batch_size
        drawn = self._sampler.draw(rng, step * count, count)
        all_bags = [self._draw_bag(rng, self._bags.members[i]) for i in drawn]
        bags = [all_bags[row] for row in self._rows]
        chosen = np.concatenate([bag[0] for bag in bags])
        matrices = np.concatenate([bag[1] for bag in bags])
        common = {"labels": self._bags.labels[drawn][self._rows], "greys": np.concatenate([bag[2] for bag in bags])}
        if self._store:
            matrices[:, :, 2] += self._margin
            return {"index": chosen.astype(np.int32), "warp": matrices, **common}
        pictures = [self._bags.pictures[i] for i in chosen]
        size = self._config.data.crop_size
        images = [geometry.warp_image(image, matrix, size) for image, matrix in zip(pictures, matrices, strict=True)]
        return {"image": np.stack(images), **common}

    def frequencies(self) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern in those of the bags that are drawn: a bag of two patterns counts for both."""
        labels = self._bags.labels
        present = labels if labels.ndim == 2 else np.eye(self._bags.num_patterns)[labels]
        counts = self._sampler.shares @ present
        return counts / counts.sum()

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        return grain.MapDataset.range(first_step, num_steps).map(self.batch)

    def _draw_bag(self, rng: np.random.Generator, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which picture, which matrix and which greys, for each tile."""
        chosen = members[rng.integers(len(members), size=self._config.data.bag_tiles)]
        matrices = np.stack([self._draw_matrix(rng, self._bags.pictures[i]) for i in chosen])
        jitter = np.repeat(rng.uniform(-1, 1, size=(3, 1)), len(chosen), axis=1)
        return chosen, matrices, jitter_greys(jitter, self._bags.greys[chosen], self._config.augment)

    def _draw_matrix(self, rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
        size, shape = self._config.data.crop_size, np.array(picture.shape)
        centre = size / 2 + rng.uniform(size=2) * (shape - size)
        return geometry.sample_cmr(rng, (float(centre[0]), float(centre[1])), size, self._config.augment)


def _members(fields: Sequence[Field]) -> list[np.ndarray]:
    """Places of each specimen's fields in the list."""
    groups = group_by(range(len(fields)), lambda place: fields[place].specimen_id)
    return [np.array(members) for members in groups.values()]
