"""The training stream: which examples are drawn, and their batches, each a pure function of (seed, step).

The state of the pipeline is the step number alone, so a restarted run continues bit for bit. Each process draws the
random numbers of the complete global batch, which costs little, and makes only the rows on its own devices (see
`mesh.local_rows`).
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt8

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.augment import geometry, intensity
from hep2jax.data.sets.items import Item
from hep2jax.data.streams import canvases
from hep2jax.errors import UsageError

Batch = dict[str, np.ndarray]

TONES = 3
"""Number of random numbers for the tone curve of a crop: for its gain, its exponent and its shift."""

_STEPS_TOGETHER, _EXAMPLES_TOGETHER = 16, 4096
"""Matrices and tone curves of so many steps, or of so many examples if those are fewer steps, are computed at once: of
one batch of cells they take less time than starting NumPy's functions does."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """The random choices for the crops of a batch, made before any pixel is read; crops of an example are adjacent."""

    picture: Int[np.ndarray, " crop"]
    """Index of the plan's picture from which each crop is cut."""
    centre: Float64[np.ndarray, "crop 2"]
    """Centre (x, y) of each crop, in the plan's coordinates (see `Plan.origins`)."""
    geometry: Float64[np.ndarray, "operation crop"]
    """Random numbers in [0, 1), a row for each operation of `geometry.GEOMETRY`."""
    tone: Float64[np.ndarray, "3 crop"]
    """Random numbers in [0, 1) for the tone curve (see `intensity.jitter_tone_curve`)."""

    def of_rows(self, count: int, rows: np.ndarray) -> "Crops":
        """Those of some of the `count` examples."""
        picture, centre, by_geometry, by_tone = (
            _of_rows(values, count, rows) for values in (self.picture, self.centre, self.geometry.T, self.tone.T)
        )
        return Crops(picture=picture, centre=centre, geometry=by_geometry.T, tone=by_tone.T)


class Plan(abc.ABC):
    """The part of a stream that depends on the kind of example: the pictures, how crops are drawn, and the labels.

    Attributes:
        config: the configuration of the experiment.
        items: the examples as the sampler sees them.
        pictures: the pictures from which crops are cut, uint8 [height, width] each; frames [height, width, 2].
        label_maps: class masks of the pictures, which are cut with them; empty if labels are not of pixels.
        tone_curve: float [picture, 4], the tone curve of each picture without jitter (see `steps.normalise`); of
            frames [picture, 2, 4].
        origins: float32 [picture, 2], the position (x, y) in each picture of the origin of the plan's coordinates.
    """

    config: Config
    items: Sequence[Item]
    pictures: Sequence[UInt8[np.ndarray, "_ _ *depth"]]
    label_maps: Sequence[UInt8[np.ndarray, "_ _"]] = ()
    tone_curve: Float[np.ndarray, "picture *curve 4"]
    origins: Float32[np.ndarray, "picture 2"]

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, chosen: Int[np.ndarray, " example"]) -> Crops:
        """Draw the crops of the chosen examples; every example has the same number of them."""

    @abc.abstractmethod
    def labels(self, chosen: Int[np.ndarray, " example"]) -> Batch:
        """Labels of the chosen examples other than `label_maps`, a row for each example."""

    @abc.abstractmethod
    def frequencies(self, shares: Float64[np.ndarray, " example"]) -> Float64[np.ndarray, " output"]:
        """Share of each output channel in the labels of batches in which examples have the given shares."""

    @abc.abstractmethod
    def make_store(self) -> tuple[canvases.Store, Float32[np.ndarray, "picture 2"]]:
        """The arrays that the devices keep with `data.warp=device`, and the `origins` in these."""


class Stream:
    """Makes batches. `stream.batch(step)` holds, for the rows of this process,

    image       uint8   [crops, crop, crop]   of frames [crops, crop, crop, 2]: grey levels and depth
    tone_curve  float32 [crops, 4]            tone curve of each crop; of frames [crops, 2, 4]
    labels      uint8   [crops, crop, crop]   for plans with label maps: 0 background, 1+i pattern, 255 void

    and the labels of the plan. With `data.warp=device`, image and label maps are replaced by

    index       int32   [crops]               which picture (and label map) of `store`
    warp        float32 [crops, 2, 3]         maps crop (x, y, 1) to (x, y) of that picture

    and by the random numbers of each intensity operation that is on, under its name: float32 [crops, n].
    """

    def __init__(self, plan: Plan, *, rows: meshes.Rows = meshes.ALL_ROWS) -> None:
        """`rows` are the rows of each global batch that this process makes."""
        config = plan.config
        self._plan = plan
        self._rows = np.arange(config.train.global_batch_size)[rows]
        self._sampler = Sampler(plan.items, config.data.balance, config.seed)
        self._store, self._origins = plan.make_store() if canvases.on_devices(config.data) else ({}, plan.origins)
        self._together = min(_STEPS_TOGETHER, -(-_EXAMPLES_TOGETHER // config.train.global_batch_size))
        self._drawn = functools.lru_cache(maxsize=2)(self._draw)

    @property
    def store(self) -> canvases.Store:
        """Arrays that the devices keep; empty if crops are cut on the host."""
        return self._store

    def frequencies(self) -> Float64[np.ndarray, " output"]:
        """Share of each output channel in the labels of batches, under `data.balance`."""
        return self._plan.frequencies(self._sampler.shares)

    def dataset(self, first_step: int, num_steps: int) -> grain.MapDataset:
        """The batches of steps first_step … num_steps-1 in order."""
        return grain.MapDataset.range(first_step, num_steps).map(self.batch)

    def batch(self, step: int) -> Batch:
        """The rows of this process in the batch of `step`."""
        block, place = divmod(step, self._together)
        drawn = {name: values[place] for name, values in self._drawn(block).items()}
        if self._store:
            return drawn
        names = [operation.name for operation in intensity.INTENSITY if operation.name in drawn]
        operations = {name: drawn.pop(name) for name in names}
        return self._cut(drawn.pop("index"), drawn.pop("warp"), operations) | drawn

    def _draw(self, block: int) -> Batch:
        """The batches of several successive steps as `data.warp=device` has them, each array with steps in front."""
        config, plan = self._plan.config, self._plan
        steps = range(block * self._together, (block + 1) * self._together)
        examples, parts, operations = zip(*map(self._draw_numbers, steps), strict=True)
        crops = _joined(parts)
        matrices = cut_matrices(config, crops)
        matrices[:, :, 2] += self._origins[crops.picture]
        curves = intensity.jitter_tone_curve(2 * crops.tone - 1, plan.tone_curve[crops.picture], config.augment)
        drawn = {"index": crops.picture.astype(np.int32), "warp": matrices}
        drawn |= {name: np.concatenate([part[name] for part in operations]) for name in operations[0]}
        drawn |= {"tone_curve": curves, **plan.labels(np.concatenate(examples))}
        return {name: values.reshape(len(steps), -1, *values.shape[1:]) for name, values in drawn.items()}

    def _draw_numbers(self, step: int) -> tuple[Int[np.ndarray, " example"], Crops, intensity.Draws]:
        """The examples of this process's rows, the choices for their crops, and the numbers of intensity operations.

        All random numbers are drawn for the global batch, so that they do not depend on the number of processes.
        """
        config, rows = self._plan.config, self._rows
        count = config.train.global_batch_size
        rng = np.random.default_rng((config.seed, step))
        examples = self._sampler.draw(rng, step * count, count)
        crops = self._plan.draw(rng, examples)
        operations = intensity.draw(config.augment, config.seed, step, len(crops.picture))
        operations = {name: _of_rows(values, count, rows) for name, values in operations.items()}
        return examples[rows], crops.of_rows(count, rows), operations

    def _cut(self, index: np.ndarray, matrices: np.ndarray, drawn: intensity.Draws) -> Batch:
        """The crops, cut and augmented on the host."""
        pictures, label_maps, size = self._plan.pictures, self._plan.label_maps, self._plan.config.data.crop_size
        pairs = list(zip(index, matrices, strict=True))
        images = np.stack([geometry.warp_image(pictures[i], matrix, size) for i, matrix in pairs])
        batch = {"image": intensity.on_host(images, drawn)}
        if label_maps:
            batch["labels"] = np.stack([geometry.warp_classes(label_maps[i], matrix, size) for i, matrix in pairs])
        return batch


class Sampler:
    """Draws examples in one of the four ways of `DataConfig.balance`.

    Attributes:
        shares: probability of each example in a draw, float64 [examples]; the sum is 1.
    """

    def __init__(self, items: Sequence[Item], balance: str, seed: int) -> None:
        self._size = len(items)
        self._seed = seed
        self._tree = None if balance == "none" else _Tree(items, balance)
        self.shares = np.full(self._size, 1 / self._size) if self._tree is None else self._tree.shares(self._size)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._shuffle)

    def draw(self, rng: np.random.Generator, first: int, count: int) -> Int64[np.ndarray, " count"]:
        """Indices of `count` examples.

        With balancing they are random; otherwise they start at position `first` of the endless sequence of shuffled
        epochs.
        """
        if self._tree is not None:
            return self._tree.draw(rng.uniform(size=(3, count)))
        epochs, positions = np.divmod(np.arange(first, first + count), self._size)
        orders = [self._epoch_order(int(epoch)) for epoch in range(epochs[0], epochs[-1] + 1)]
        return np.concatenate(orders)[positions + (epochs - epochs[0]) * self._size]

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch, self._size)).permutation(self._size)


class _Tree:
    """A tree of patterns, specimens and examples, as flat arrays. A level that is not balanced has a single branch.

    An example with several patterns is on the branch of each; those without a pattern have their own branch.
    """

    def __init__(self, items: Sequence[Item], balance: str) -> None:
        groups: dict[tuple[int, str], list[int]] = {}
        for index, item in enumerate(items):
            specimen = "" if balance == "class" else item.specimen
            for pattern in (0,) if balance == "specimen" else item.patterns:
                groups.setdefault((pattern, specimen), []).append(index)
        ordered = sorted(groups)
        self._groups = np.unique([pattern for pattern, _ in ordered], return_counts=True)[1]
        self._sizes = np.array([len(groups[key]) for key in ordered])
        self._first_groups, self._first_positions = _starts(self._groups), _starts(self._sizes)
        self._examples = np.concatenate([groups[key] for key in ordered])

    def shares(self, count: int) -> Float64[np.ndarray, " count"]:
        """Probability of each of `count` examples in one draw."""
        of_group = np.repeat(1 / (len(self._groups) * self._groups), self._groups)
        return np.bincount(self._examples, np.repeat(of_group / self._sizes, self._sizes), minlength=count)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Examples for random numbers in [0, 1), shape [3, count], which select pattern, specimen and example."""
        pattern = (uniform[0] * len(self._groups)).astype(int)
        group = self._first_groups[pattern] + (uniform[1] * self._groups[pattern]).astype(int)
        position = self._first_positions[group] + (uniform[2] * self._sizes[group]).astype(int)
        return self._examples[position]


def _joined(parts: Sequence[Crops]) -> Crops:
    """The crops of several batches, one batch after the other."""
    return Crops(
        picture=np.concatenate([part.picture for part in parts]),
        centre=np.concatenate([part.centre for part in parts]),
        geometry=np.concatenate([part.geometry for part in parts], axis=1),
        tone=np.concatenate([part.tone for part in parts], axis=1),
    )


def _of_rows(values: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
    """The entries of some of `count` examples in an array with an entry for each of their crops."""
    if len(rows) == count:
        return values
    return values.reshape(count, -1, *values.shape[1:])[rows].reshape(-1, *values.shape[1:])


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def cut_matrices(config: Config, crops: Crops) -> Float32[np.ndarray, "crop 2 3"]:
    """Matrices from the pixels of each crop to the plan's coordinates."""
    return geometry.matrices(crops.centre, crops.geometry, config.data.crop_size, config.augment)


def check_size(name: str, image: UInt8[np.ndarray, "_ _"], crop_size: int) -> None:
    """Raise UsageError if the image, at working resolution, is smaller than a crop."""
    height, width = image.shape
    if min(height, width) < crop_size:
        raise UsageError(
            f"{name}: {width}x{height} pixels at working resolution are smaller than data.crop_size={crop_size}; "
            "take a smaller crop or a larger data.scale"
        )
