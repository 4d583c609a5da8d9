"""Single cells: read from a data set of cells or cut from fields, and preprocessed for the square network input."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Bool, Float32, Integer, UInt8
from scipy import ndimage

from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets import framing, prepare
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.sets.items import Item, group_specimens
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint

_CUT_MARGIN = 0.15  # context around a cell cut from a specimen, as a share of its bounding box's longer side
MIN_GREY_SPAN = 4.0  # keeps the noise of a crop without structure from being stretched to full scale
_CLAHE_LIMIT, _CLAHE_TILES = 2.0, (8, 8)  # the clip limit and the tiles of OpenCV's examples


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One cell with its annotation, and the picture from which the network input is cut.

    The names of these attributes are part of the fingerprints of examples, so renaming one would make work directories
    of earlier runs unusable.
    """

    item: Item
    intensity: str
    image: UInt8[np.ndarray, "height width"]
    """The owner's crop, in the configured channel."""
    ready: UInt8[np.ndarray, "ready_height ready_width *depth"]
    """The preprocessed crop: masked, equalised and at the input's resolution; its centre is the input's centre. With
    `data.cell_fit=frame` its second channel is the depth of each pixel (see `framing.encode_depth`)."""
    tone_curve: Float32[np.ndarray, "*curve 4"]
    """Grey offset, gain, exponent, shift; with `data.cell_fit=frame` two such curves. See `steps.normalise`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellSet:
    """All cells of a data set."""

    name: str
    classes: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """The cells as protocols see them."""
        return tuple(cell.item for cell in self.cells)

    def __len__(self) -> int:
        return len(self.cells)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A cell as it was read or cut, before any preprocessing."""

    identifier: str
    specimen: str
    split: str
    pattern: int
    intensity: str
    image: np.ndarray
    mask: np.ndarray
    folds: tuple[int, ...] = ()
    field: str = ""
    """Fingerprint of the field that it was cut from; empty if the owner cut it."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.identifier


def load(config: DataConfig) -> CellSet:
    """Read and preprocess every cell of every split of the data set, see `read_crops`."""
    classes, crops = read_crops(config)
    return from_crops(config.name, classes, crops, config)


def read_crops(config: DataConfig) -> tuple[tuple[str, ...], list[Crop]]:
    """The patterns, and every cell of every split of the data set, which is prepared first if it is absent.

    Cells of a data set of fields are cut along its instance masks; mitotic cells, artefacts and cells that touch the
    frame are left out.

    Raises:
        UsageError: the data set has neither cells nor instance masks.
    """
    builder = prepare.prepare(config.name, builder_config(config), config.data_dir, config.manual_dir)
    features: Any = builder.info.features
    if not {"mask", "instance_mask"} & set(features):
        raise UsageError(
            f"{builder.info.full_name} has neither cells nor instance masks from which cells can be cut, and this "
            "network needs cells"
        )
    read = _read_cells if "mask" in features else _cut_cells
    crops = [crop for split in sorted(builder.info.splits) for crop in read(builder, split, config)]
    if not crops:
        raise UsageError(
            f"{builder.info.full_name}: no cell can be cut from its fields, for want of masks that show some"
        )
    return tuple(features["pattern"].names), crops


def builder_config(config: DataConfig) -> str:
    """The named configuration of the builder that a reader of cells takes."""
    known = prepare.configurations(config.name)
    return config.builder_config or ("cells" if "cells" in known else known[0])


def from_fields(fields: FieldSet, config: DataConfig) -> CellSet:
    """The cells of fields, cut along their instance masks in the same way as by `load`."""
    crops = [
        Crop(
            identifier=f"{field.specimen_id}-{field.number}-{cut.number:03d}",
            specimen=field.specimen_id,
            split=field.split,
            pattern=field.pattern,
            intensity=field.intensity,
            image=cut.image,
            mask=cut.mask,
            field=picture,
        )
        for field, picture in ((field, fingerprint(field.image)) for field in fields.fields)
        for cut in cut_out(field.image, field.instances, of_kind(field, "cell")).cuts
    ]
    return from_crops(fields.name, fields.classes, crops, config)


def of_kind(field: Field, kind: str) -> list[int]:
    """Numbers of the field's objects of a kind, ascending; if the data set has no kinds, every object is a cell."""
    present = (np.flatnonzero(np.bincount(field.instances.ravel())[1:]) + 1).tolist()
    return [number for number in present if field.kinds.get(number, "cell") == kind]


def from_crops(name: str, classes: Sequence[str], crops: Sequence[Crop], config: DataConfig) -> CellSet:
    """The cells of a data set of this name, preprocessed as configured."""
    # Fields are compared too, because the masks of two copies of a field, and thus the cells cut from it, may differ.
    groups = group_specimens((c.specimen, picture) for c in crops for picture in (c.image, c.field) if len(picture))
    cells = tuple(_make_cell(crop, groups[crop.specimen], config) for crop in crops)
    logging.info("%s: %d cells of %d specimens", name, len(cells), len(groups))
    return CellSet(name=name, classes=tuple(classes), cells=cells)


def _examples(builder: tfds.core.DatasetBuilder, split: str, images: Sequence[str]) -> Any:
    raw: Any = {name: tfds.decode.SkipDecoding() for name in images}
    return cast(Any, builder).as_data_source(split, decoders=raw)


def _read_cells(builder: tfds.core.DatasetBuilder, split: str, config: DataConfig) -> Iterator[Crop]:
    features: Any = builder.info.features
    for example in _examples(builder, split, ("image", "mask")):
        number = int(example["cell_id"])
        yield Crop(
            # The contest ids of ICPR 2012 start again from 1 in the test set.
            identifier=_identifier(example, f"{split}-{number:03d}" if "set" in features else f"{number:05d}"),
            specimen=os.fsdecode(example["specimen_id"]),
            split=split,
            pattern=int(example["pattern"]),
            intensity=features["intensity"].int2str(int(example["intensity"])),
            image=field_sets.select_channel(field_sets.decode(example["image"]), config.channel),
            mask=field_sets.decode(example["mask"]) > 0,
            folds=tuple(int(split_of_fold) for split_of_fold in example.get("fold_sides", ())),
        )


def _identifier(example: Any, by_number: str) -> str:
    return os.fsdecode(example["name"]) if "name" in example else by_number


def _cut_cells(builder: tfds.core.DatasetBuilder, split: str, config: DataConfig) -> Iterator[Crop]:
    features: Any = builder.info.features
    kinds = features["objects"]["kind"]
    for example in _examples(builder, split, ("image", "instance_mask")):
        image = field_sets.select_channel(field_sets.decode(example["image"]), config.channel)
        instances = field_sets.decode(example["instance_mask"])
        specimen, picture = os.fsdecode(example["specimen_id"]), fingerprint(image)
        objects = zip(example["objects"]["instance"], example["objects"]["kind"], strict=True)
        wanted = [int(instance) for instance, kind in objects if kinds.int2str(int(kind)) == "cell"]
        for cut in cut_out(image, instances, wanted).cuts:
            yield Crop(
                identifier=f"{specimen}-{int(example['field'])}-{cut.number:03d}",
                specimen=specimen,
                split=split,
                pattern=int(example["pattern"]),
                intensity=features["intensity"].int2str(int(example["intensity"])),
                image=cut.image,
                mask=cut.mask,
                field=picture,
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """One object of a field, cut out with some context: the input of `preprocess`."""

    number: int
    """The object's value in the instance mask."""
    image: UInt8[np.ndarray, "height width"]
    mask: Bool[np.ndarray, "height width"]

    @property
    def name(self) -> str:
        """For messages."""
        return f"cell {self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutOut:
    """The objects that were cut from one field."""

    cuts: tuple[Cut, ...]
    """The objects that do not touch the frame, in the requested order."""
    num_cut_by_frame: int
    """Number of objects that touch the frame and are therefore left out."""


def cut_out(
    image: UInt8[np.ndarray, "height width"],
    instances: Integer[np.ndarray, "height width"],
    numbers: Iterable[int] | None = None,
) -> CutOut:
    """Cut objects out of a field, each with `_CUT_MARGIN` around its bounding box; those at the frame are left out.

    Args:
        image: uint8 [height, width].
        instances: int [height, width], 0 background, from any source: annotators, a network or a threshold.
        numbers: the objects to cut out; those without a pixel are skipped. None: all.
    """
    boxes = ndimage.find_objects(instances)
    requested = range(1, len(boxes) + 1) if numbers is None else numbers
    present = [(number, boxes[number - 1]) for number in requested if number <= len(boxes) and boxes[number - 1]]
    inside = [(number, box) for number, box in present if not _touches_frame(box, image.shape)]
    widened = [(number, _widen(box, _CUT_MARGIN, image.shape)) for number, box in inside]
    cuts = tuple(
        Cut(number=number, image=np.ascontiguousarray(image[box]), mask=instances[box] == number)
        for number, box in widened
    )
    return CutOut(cuts=cuts, num_cut_by_frame=len(present) - len(inside))


Box = tuple[slice, slice]


def _box_of(mask: np.ndarray) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _touches_frame(box: Box, shape: tuple[int, ...]) -> bool:
    return any(extent.start == 0 or extent.stop == length for extent, length in zip(box, shape, strict=True))


def _widen(box: Box, margin: float, shape: tuple[int, ...]) -> Box:
    """The box, enlarged on each side by `margin` times its longer side and clipped to the image."""
    context = round(margin * max(extent.stop - extent.start for extent in box))
    rows, columns = (
        slice(max(0, extent.start - context), min(length, extent.stop + context))
        for extent, length in zip(box, shape, strict=True)
    )
    return rows, columns


def _make_cell(crop: Crop, group: str, config: DataConfig) -> Cell:
    item = Item(
        identifier=crop.identifier,
        specimen=crop.specimen,
        group=group,
        pattern=crop.pattern,
        split=crop.split,
        folds=crop.folds,
    )
    ready, tone_curve = preprocess(crop.image, crop.mask, config, name=crop.identifier)
    return Cell(item=item, intensity=crop.intensity, image=crop.image, ready=ready, tone_curve=tone_curve)


def needs_mask(config: DataConfig) -> bool:
    """Whether cells without a mask cannot be preprocessed."""
    return config.masked or config.cell_margin >= 0 or config.cell_fit == "frame"


def preprocess(
    image: UInt8[np.ndarray, "height width"], mask: np.ndarray, config: DataConfig, *, name: str = "a cell"
) -> tuple[UInt8[np.ndarray, "ready_height ready_width *depth"], Float32[np.ndarray, "*curve 4"]]:
    """Preprocess one crop: reframe, mask, normalise and resize it as configured.

    Args:
        image: uint8 [h, w].
        mask: bool [h, w], true on the cell; all false if there is no mask.
        config: `cell_margin`, `masked`, `normalise`, `mean_centring`, `top_percentile`, `cell_fit`, `crop_size`.
        name: name of the cell, for messages.

    Returns:
        The preprocessed crop and its tone curve (of a frame: its two tone curves).

    Raises:
        UsageError: `masked`, `cell_margin` >= 0 or `cell_fit` = frame for a cell without a mask.
    """
    framed = config.cell_fit == "frame"
    if needs_mask(config) and not mask.any():
        raise UsageError(
            f"{name}: has no mask here, but data.masked, data.cell_margin and data.cell_fit=frame need one; take "
            "data.masked=False and data.cell_margin=-1 and another data.cell_fit"
        )
    if framed:
        frame = _frame(image, mask, config)
        return frame, framing.curves(frame)
    if config.cell_margin >= 0:
        image, mask = _reframe(image, mask, config.cell_margin)
    if config.masked:
        image = np.where(mask, image, image.min())
    image, offset, gain = _normalise(image, config)
    ready = _resize(image, config)
    mean = float(np.mean((ready.astype(np.float32) - offset) * gain)) if config.mean_centring else 0.0
    return ready, np.array([offset, gain, 1.0, -mean], np.float32)


def _reframe(image: np.ndarray, mask: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut to the mask's bounding box and `margin` times its longer side; beyond its border, the crop is mirrored."""
    box = _box_of(mask)
    assert box is not None
    context = round(margin * max(extent.stop - extent.start for extent in box))
    padded_image = cv2.copyMakeBorder(image, context, context, context, context, cv2.BORDER_REFLECT)
    padded_mask = np.pad(mask, context)
    frame = tuple(slice(extent.start, extent.stop + 2 * context) for extent in box)
    return np.ascontiguousarray(padded_image[frame]), np.ascontiguousarray(padded_mask[frame])


def _frame(image: np.ndarray, mask: np.ndarray, config: DataConfig) -> UInt8[np.ndarray, "side side 2"]:
    """Grey levels and depth of a square about the middle of the mask's bounding box.

    It is half as large again as the input, so that augmentation has something to turn and zoom into the input.
    """
    if config.scale != 1:
        size = (max(1, round(image.shape[1] * config.scale)), max(1, round(image.shape[0] * config.scale)))
        image = _resampled(image, size)
        mask = _resampled(mask.astype(np.float32), size) > 0.5
        mask = mask if mask.any() else np.ones(mask.shape, bool)
    box, side = _box_of(mask), config.crop_size + 2 * (config.crop_size // 4)
    assert box is not None
    first = [(extent.start + extent.stop - side) // 2 + side for extent in box]
    window = tuple(slice(start, start + side) for start in first)
    grey = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REFLECT)
    return np.stack([grey[window], framing.encode_depth(np.pad(mask, side)[window])], axis=-1)


def _normalise(image: np.ndarray, config: DataConfig) -> tuple[np.ndarray, float, float]:
    """The image (equalised, if so configured), the grey level that becomes 0, and 1 / the span that becomes 1."""
    if config.normalise == "none":
        return image, 0.0, 1 / 255
    if config.normalise == "equalise":
        return cv2.equalizeHist(image), 0.0, 1 / 255
    low, high = float(image.min()), float(np.percentile(image, config.top_percentile))
    gain = 1 / max(high - low, MIN_GREY_SPAN)
    if config.normalise == "contrast_stretch":
        return image, low, gain
    # CLAHE clips histograms of 256 bins: it has no effect on the few grey levels of a dim cell without stretching.
    stretched = np.clip((image - low) * gain * 255, 0, 255).astype(np.uint8)
    return cv2.createCLAHE(_CLAHE_LIMIT, _CLAHE_TILES).apply(stretched), 0.0, 1 / 255


def _resize(image: np.ndarray, config: DataConfig) -> UInt8[np.ndarray, "ready_height ready_width"]:
    height, width = image.shape
    side = config.crop_size
    if config.cell_fit == "stretch":
        size = (side, side)
    else:
        factor = config.scale if config.cell_fit == "native" else side / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return image if size == (width, height) else _resampled(image, size)


def _resampled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image with this width and height: area averages if both shrink, otherwise linear interpolation."""
    shrinks = size[0] < image.shape[1] and size[1] < image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
