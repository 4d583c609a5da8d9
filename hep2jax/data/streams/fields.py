"""Crops of fields with their class masks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8
from typing_extensions import override

from hep2jax.config import Config
from hep2jax.data.augment import geometry
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams import canvases
from hep2jax.data.streams.stream import TONES, Batch, Crops, Plan, check_size, cut_matrices
from hep2jax.errors import UsageError
from hep2jax.metrics.pixels import VOID

_MAX_FOREGROUND_POINTS = 4096  # bounds the memory of each field's sample of cell pixels, on which crops are centred
_FREQUENCY_CROPS = 2048  # for 48 fields with eight patterns, the error of the share of a pattern is then some 3 %


class FieldPlan(Plan):
    """One crop of each drawn field, centred on a cell or placed anywhere, with its class mask."""

    def __init__(self, config: Config, fields: FieldSet, indices: Sequence[int]) -> None:
        """Plan batches of the chosen fields.

        Raises:
            UsageError: no field is chosen, or an image is smaller than the crop.
        """
        chosen = [fields.fields[i] for i in indices]
        if not chosen:
            raise UsageError(f"{fields.name}: no field to train on under data.protocol={config.data.protocol}")
        for field in chosen:
            check_size(field.name, field.working_image, config.data.crop_size)
        self.config = config
        self.items = [fields.items[i] for i in indices]
        self.pictures = [field.working_image for field in chosen]
        self.label_maps = [field.working_classes for field in chosen]
        self.tone_curve = np.array([[field.grey_offset, field.grey_gain, 1.0, 0.0] for field in chosen])
        self.origins = np.zeros((len(chosen), 2), np.float32)
        self._num_patterns = len(fields.classes)
        self._shapes = np.array([field.working_image.shape for field in chosen], float)
        points = [_foreground_points(field) for field in chosen]
        self._points, self._num_points = np.concatenate(points), np.array([len(found) for found in points])
        self._first_points = np.cumsum(self._num_points) - self._num_points

    @override
    def draw(self, rng: np.random.Generator, chosen: Int[np.ndarray, " example"]) -> Crops:
        draws = rng.random((len(chosen), 6 + len(geometry.GEOMETRY) + TONES)).T
        return Crops(
            picture=chosen,
            centre=self._centres(draws[:6], chosen)[:, ::-1],
            geometry=draws[6:-TONES],
            tone=draws[-TONES:],
        )

    @override
    def labels(self, chosen: Int[np.ndarray, " example"]) -> Batch:
        return {}

    @override
    def frequencies(self, shares: Float64[np.ndarray, " example"]) -> Float64[np.ndarray, " output"]:
        """Share of each class (0 background, 1+i pattern) in the pixels of the crops, without void pixels.

        It is estimated from at least `_FREQUENCY_CROPS` crops, which are drawn as in batches: the same number from each
        field, weighted by how often the sampler draws the field. A class that is in no crop has its share of the
        fields' pixels.
        """
        rng, size = np.random.default_rng(self.config.seed), self.config.data.crop_size
        repeats = -(-_FREQUENCY_CROPS // len(self.label_maps))
        in_crops, in_fields = np.zeros(self._num_patterns + 1), np.zeros(self._num_patterns + 1)
        for index, (classes, share) in enumerate(zip(self.label_maps, shares, strict=True)):
            in_fields += share * _class_shares(classes, len(in_fields))
            for matrix in cut_matrices(self.config, self.draw(rng, np.full(repeats, index))):
                labels = geometry.warp_classes(classes, matrix, size)
                in_crops += share / repeats * _class_shares(labels, len(in_crops))
        present = np.where(in_crops > 0, in_crops, in_fields)
        return present / present.sum()

    @override
    def make_store(self) -> tuple[canvases.Store, np.ndarray]:
        margin = canvases.margin(self.config)
        store = {
            "pictures": canvases.with_margin(self.pictures, margin),
            "label_maps": canvases.with_margin(self.label_maps, margin),
        }
        return store, self.origins + np.float32(margin)

    def _centres(self, draws: np.ndarray, chosen: np.ndarray) -> Float[np.ndarray, "crop 2"]:
        """Centres (y, x) within a quarter crop of a cell pixel, or anywhere; crops stay inside if they can."""
        size, shapes = self.config.data.crop_size, self._shapes[chosen]
        centres, jitter = draws[2:4].T * shapes, (0.5 * draws[4:6].T - 0.25) * size
        counts = self._num_points[chosen]
        on_cell = (draws[0] < self.config.data.foreground_crops) & (counts > 0)
        points = self._first_points[chosen] + (draws[1] * counts).astype(int)
        centres[on_cell] = self._points[points[on_cell]] + jitter[on_cell]
        return np.clip(centres, size / 2, np.maximum(shapes - size / 2, size / 2))


def _class_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class as shares of all pixels, including void ones."""
    return np.bincount(labels.ravel(), minlength=VOID + 1)[:num_classes] / labels.size


def _foreground_points(field: Field) -> Int[np.ndarray, "point 2"]:
    """An evenly spaced sample of the cell pixels, as (y, x); empty for a field without cells."""
    classes: UInt8[np.ndarray, "height width"] = field.working_classes
    points = np.argwhere((classes > 0) & (classes != VOID))
    step = max(1, len(points) // _MAX_FOREGROUND_POINTS)
    return points[::step]
