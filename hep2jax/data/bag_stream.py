"""The training stream of `mil`: bags of crops, each bag from all fields of one specimen; no mask is looked at."""

from collections.abc import Sequence

import grain
import numpy as np

from hep2jax.config import Config
from hep2jax.data import canvases, geometry
from hep2jax.data.photometry import jitter_greys
from hep2jax.data.pipeline import Batch, check_size
from hep2jax.data.sampling import Sampler
from hep2jax.data.sources import Field, FieldSet
from hep2jax.errors import UsageError


class BagStream:
    """Makes batches: `stream.batch(step)` has, with `data.bag_tiles` tiles in a bag,

    image    uint8   [rows * tiles, crop, crop]   one bag behind the other
    labels   int32   [rows]                       pattern of the specimen
    greys    float32 [rows * tiles, 4]            grey-level map of each tile

    for the rows of this process. Each tile takes a place of its own, anywhere in any field of the specimen, and a
    crop-mirror-rotate matrix of its own; the photometric jitter is that of the bag, as a specimen is exposed once. With
    `data.warp=device` there are, instead of the image, `index` [rows * tiles] and `warp` [rows * tiles, 2, 3] as in
    `pipeline.TrainingStream`.

    Raises UsageError where an image is smaller than the crop.
    """

    def __init__(self, config: Config, fields: FieldSet, indices: Sequence[int], *, rows: slice | None = None) -> None:
        self._config = config
        self._fields = [fields.fields[i] for i in indices]
        self._rows = rows or slice(0, config.train.global_batch_size)
        if not self._fields:
            raise UsageError(f"{fields.name}: no field to train on under data.protocol={config.data.protocol}")
        for field in self._fields:
            check_size(field, config.data.crop_size)
        self._bags = _members(self._fields)
        specimens = [self._fields[members[0]] for members in self._bags]
        self._patterns = np.array([field.pattern for field in specimens], np.int32)
        self._sampler = Sampler([field.item for field in specimens], config.data.balance, config.seed)
        self._margin = canvases.reach(config.data.crop_size, config.augment) - config.data.crop_size // 2
        self._store = self._make_store() if config.data.warp == "device" else {}

    @property
    def store(self) -> canvases.Store:
        """Arrays that the devices keep; empty where crops are made on the host."""
        return self._store

    def _make_store(self) -> canvases.Store:
        images = [field.working_image for field in self._fields]
        return {"pictures": canvases.of_fields(images, images, self._margin)["pictures"]}

    def batch(self, step: int) -> Batch:
        """The rows of this process in the batch of `step`."""
        rng = np.random.default_rng((self._config.seed, step))
        count = self._config.train.global_batch_size
        drawn = self._sampler.draw(rng, step * count, count)
        bags = [self._draw_bag(rng, self._bags[i]) for i in drawn][self._rows]
        fields = np.concatenate([bag[0] for bag in bags])
        matrices = np.concatenate([bag[1] for bag in bags])
        common = {"labels": self._patterns[drawn][self._rows], "greys": np.concatenate([bag[2] for bag in bags])}
        if self._store:
            matrices[:, :, 2] += self._margin
            return {"index": fields.astype(np.int32), "warp": matrices, **common}
        pictures = [self._fields[i].working_image for i in fields]
        size = self._config.data.crop_size
        images = [geometry.warp_image(image, matrix, size) for image, matrix in zip(pictures, matrices, strict=True)]
        return {"image": np.stack(images), **common}

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        return grain.MapDataset.range(first_step, num_steps).map(self.batch)

    def _draw_bag(self, rng: np.random.Generator, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which field, which matrix and which greys, for each tile."""
        fields = members[rng.integers(len(members), size=self._config.data.bag_tiles)]
        matrices = np.stack([self._draw_matrix(rng, self._fields[i]) for i in fields])
        jitter = np.repeat(rng.uniform(-1, 1, size=(3, 1)), len(fields), axis=1)
        plain = np.array([[self._fields[i].grey_offset, self._fields[i].grey_gain, 1.0, 0.0] for i in fields])
        return fields, matrices, jitter_greys(jitter, plain, self._config.augment)

    def _draw_matrix(self, rng: np.random.Generator, field: Field) -> np.ndarray:
        size, shape = self._config.data.crop_size, np.array(field.working_image.shape)
        centre = size / 2 + rng.uniform(size=2) * (shape - size)
        return geometry.sample_cmr(rng, (float(centre[0]), float(centre[1])), size, self._config.augment)


def _members(fields: Sequence[Field]) -> list[np.ndarray]:
    """Places of each specimen's fields in the list."""
    groups: dict[str, list[int]] = {}
    for index, field in enumerate(fields):
        groups.setdefault(field.specimen_id, []).append(index)
    return [np.array(members) for members in groups.values()]
