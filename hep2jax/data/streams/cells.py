"""The training stream of single cells: a batch is a pure function of (seed, step), as in `fields`."""

import math
from collections.abc import Iterator, Sequence

import cv2
import grain
import jax
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.augment.intensity import jitter_greys
from hep2jax.data.sets.cells import CellSet
from hep2jax.data.streams import canvases, feeding
from hep2jax.data.streams.sampling import Sampler
from hep2jax.errors import UsageError

Batch = dict[str, np.ndarray]


class CellStream:
    """Makes batches: `stream.batch(step)` has

    image    uint8   [rows, crop, crop]
    labels   int32   [rows]               pattern
    greys    float32 [rows, 4]            grey-level map of each example

    for the rows of this process. With `data.warp=device` there are, instead of the image,

    index    int32   [rows]               which picture of `store`
    warp     float32 [rows, 2, 3]         input (x, y, 1) → (x, y) of that picture
    """

    def __init__(
        self, config: Config, cells: CellSet, indices: Sequence[int], *, rows: meshes.Rows = meshes.ALL_ROWS
    ) -> None:
        self._config = config
        self._cells = [cells.cells[i] for i in indices]
        self._rows = rows
        if not self._cells:
            raise UsageError(f"{cells.name}: no cell to train on under data.protocol={config.data.protocol}")
        self._sampler = Sampler([cell.item for cell in self._cells], config.data.balance, config.seed)
        self._patterns = np.array([cell.item.pattern for cell in self._cells], np.int32)
        self._num_patterns = len(cells.classes)
        self._greys = np.stack([cell.greys for cell in self._cells])
        self._store, self._origins = {}, None
        if canvases.on_devices(config.data):
            self._store, self._origins = self._make_store()

    @property
    def store(self) -> canvases.Store:
        """Arrays that the devices keep; empty where crops are made on the host."""
        return self._store

    def _make_store(self) -> tuple[canvases.Store, np.ndarray]:
        size, augment = self._config.data.crop_size, self._config.augment
        around = canvases.reach(size, augment) + math.ceil(augment.shift * size)
        return canvases.of_cells([cell.ready for cell in self._cells], size, around)

    def batch(self, step: int) -> Batch:
        """The rows of this process in the batch of `step`."""
        size, count = self._config.data.crop_size, self._config.train.global_batch_size
        rng = np.random.default_rng((self._config.seed, step))
        drawn = self._sampler.draw(rng, step * count, count)
        warps = geometry.sample_cell_warps(rng, count, size, self._config.augment)
        greys = jitter_greys(rng.uniform(-1, 1, size=(3, count)), self._greys[drawn], self._config.augment)
        drawn, warps, greys = drawn[self._rows], warps[self._rows], greys[self._rows]
        common = {"labels": self._patterns[drawn], "greys": greys}
        if self._origins is not None:
            warps[:, :, 2] += self._origins[drawn]
            return {"index": drawn.astype(np.int32), "warp": warps, **common}
        images = [warp_cell(self._cells[i].ready, warp, size) for i, warp in zip(drawn, warps, strict=True)]
        return {"image": np.stack(images), **common}

    def frequencies(self) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern in the cells that are drawn."""
        return np.bincount(self._patterns, self._sampler.shares, minlength=self._num_patterns)

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        return grain.MapDataset.range(first_step, num_steps).map(self.batch)


def warp_cell(
    ready: UInt8[np.ndarray, "height width"], warp: Float32[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "size size"]:
    """The network's input from a ready picture; beyond the picture's border, its mirror image.

    `warp` maps input to input (see `geometry.sample_cell_warps`); the picture lies centred on the input.
    """
    height, width = ready.shape
    matrix = warp.copy()
    matrix[:, 2] += (width - size) / 2, (height - size) / 2
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    return cv2.warpAffine(ready, matrix, (size, size), flags=flags, borderMode=border)


def plain_input(ready: UInt8[np.ndarray, "height width"], size: int) -> UInt8[np.ndarray, "size size"]:
    """The network's input without augmentation."""
    if ready.shape == (size, size):
        return ready
    return warp_cell(ready, np.eye(2, 3, dtype=np.float32), size)


def plain_batches(
    images: Sequence[np.ndarray], greys: Sequence[np.ndarray], *, size: int, side: int, mesh: jax.sharding.Mesh
) -> Iterator[feeding.DeviceBatch]:
    """Cells without augmentation in batches on the devices: `image` uint8 [size, side, side], `greys` [size, 4].

    All are full: the last is filled up with repetitions.

    Args:
        images: ready pictures, uint8 (see `cells.make_ready`).
        greys: their grey-level maps, float32 [4].
        size: of a batch, over all processes.
        side: of the network's input.
        mesh: whose devices share a batch.
    """
    rows = meshes.local_rows(mesh, size)
    for first in range(0, len(images), size):
        chosen = np.resize(np.arange(first, min(first + size, len(images))), size)[rows]
        pixels = np.stack([plain_input(images[i], side) for i in chosen])
        yield feeding.put({"image": pixels, "greys": np.stack([greys[i] for i in chosen])}, mesh)
