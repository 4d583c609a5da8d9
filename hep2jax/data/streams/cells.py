"""Single cells: as augmented training examples, and without augmentation."""

import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int, UInt8
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.sets.along import Along
from hep2jax.data.sets.cells import CellSet
from hep2jax.data.streams import canvases, feeding
from hep2jax.data.streams.stream import TONES, Batch, Crops, Plan
from hep2jax.errors import UsageError


class CellPlan(Plan):
    """One crop of each drawn cell, shifted about the middle of the input. In addition to the crops, batches hold

    labels   int32   [rows]               pattern

    or, if the cells of a second set are learned from along with these,

    labels   bool    [rows, patterns]     the patterns that the cell may have
    """

    def __init__(self, config: Config, cells: CellSet, indices: Sequence[int], along: Along | None = None) -> None:
        """Plan batches of the chosen cells.

        Raises:
            UsageError: no cell is chosen.
        """
        chosen = [cells.cells[i] for i in indices]
        if not chosen:
            raise UsageError(f"{cells.name}: no cell to train on under data.protocol={config.data.protocol}")
        chosen += along.cells if along else ()
        self.config = config
        self.items = [cell.item for cell in chosen]
        self.pictures = [cell.ready for cell in chosen]
        self.tone_curve = np.stack([cell.tone_curve for cell in chosen])
        self.origins = np.stack([_origin(picture, config.data.crop_size) for picture in self.pictures])
        self._patterns = np.array([item.pattern for item in self.items], np.int32)
        self._along = along
        self._num_patterns = len(cells.classes)

    @override
    def draw(self, rng: np.random.Generator, chosen: Int[np.ndarray, " example"]) -> Crops:
        operations, size = len(geometry.GEOMETRY), self.config.data.crop_size
        draws = rng.random((operations + 2 + TONES, len(chosen)))
        shifts = self.config.augment.shift * size * (2 * draws[operations : operations + 2].T - 1)
        return Crops(
            picture=chosen,
            centre=(size - 1) / 2 + shifts,
            geometry=draws[:operations],
            tone=draws[-TONES:],
        )

    @override
    def labels(self, chosen: Int[np.ndarray, " example"]) -> Batch:
        labels = self._patterns[chosen]
        return {"labels": self._along.possible[labels] if self._along else labels}

    @override
    def frequencies(self, shares: Float64[np.ndarray, " example"]) -> Float64[np.ndarray, " pattern"]:
        """Share of each pattern among the drawn cells; a cell that may have several counts for each in part."""
        if self._along is None:
            return np.bincount(self._patterns, shares, minlength=self._num_patterns)
        possible = self._along.possible
        of_labels = np.bincount(self._patterns, shares, minlength=len(possible))
        return of_labels @ (possible / np.maximum(possible.sum(axis=1, keepdims=True), 1))

    @override
    def make_store(self) -> tuple[canvases.Store, np.ndarray]:
        size, augment = self.config.data.crop_size, self.config.augment
        around = canvases.reach(size, augment) + math.ceil(augment.shift * size)
        pictures, moved = canvases.centred(self.pictures, around)
        origins = self.origins + moved
        if pictures.ndim == 3:
            return {"pictures": pictures}, origins
        grey, depths = np.ascontiguousarray(np.moveaxis(pictures, -1, 0))
        return {"pictures": grey, "depths": depths}, origins


def plain_input(ready: UInt8[np.ndarray, "height width *depth"], size: int) -> UInt8[np.ndarray, "size size *depth"]:
    """The network input from a preprocessed picture, without augmentation; beyond its border, it is mirrored."""
    if ready.shape[:2] == (size, size):
        return ready
    matrix = np.eye(2, 3, dtype=np.float32)
    matrix[:, 2] = _origin(ready, size)
    return geometry.warp_image(ready, matrix, size)


def _origin(ready: UInt8[np.ndarray, "height width *depth"], size: int) -> Float32[np.ndarray, "2"]:
    """(x, y) of the origin of the network input in a preprocessed picture; both have the same centre.

    `size` is the height and width of the input.
    """
    height, width = ready.shape[:2]
    return np.array([(width - size) / 2, (height - size) / 2], np.float32)


def plain_batches(
    images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray], *, size: int, side: int, mesh: jax.sharding.Mesh
) -> Iterator[feeding.DeviceBatch]:
    """Cells without augmentation in batches on the devices: `image` uint8 [size, side, side], `tone_curve` [size, 4].

    Frames (`data.cell_fit=frame`) have two channels and two tone curves: `image` [size, side, side, 2], `tone_curve`
    [size, 2, 4]. All batches are full, because a forward pass is compiled for one size: the last is padded with
    repetitions.

    Args:
        images: preprocessed pictures, uint8 (see `cells.preprocess`).
        tone_curve: their tone curves, float32 [4]; of frames [2, 4].
        size: size of a batch, over all processes.
        side: height and width of the network input.
        mesh: the devices over which a batch is divided.
    """
    rows = meshes.local_rows(mesh, size)
    for first in range(0, len(images), size):
        chosen = np.resize(np.arange(first, min(first + size, len(images))), size)[rows]
        pixels = np.stack([plain_input(images[i], side) for i in chosen])
        yield feeding.put({"image": pixels, "tone_curve": np.stack([tone_curve[i] for i in chosen])}, mesh)
