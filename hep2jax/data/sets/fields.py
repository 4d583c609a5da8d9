"""Fields of prepared data sets, decoded once into arrays in host memory."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Shaped, UInt8, UInt16

from hep2jax.config import DataConfig
from hep2jax.data.sets import prepare
from hep2jax.data.sets.contrast import log_over_background
from hep2jax.data.sets.items import Item, group_specimens
from hep2jax.errors import UsageError
from hep2jax.grey_levels import percentiles
from hep2jax.metrics.pixels import VOID

MIN_GREY_SPAN = 4.0  # keeps the noise of an image without cells from being stretched to full scale
_MIN_LOG_SPAN = 0.1  # the same for the logarithm: a tenth more light than the background
_LOG_LEVELS = 51  # grey levels between background and top of a logarithm, so that 256 levels reach from -1 to 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One image of a specimen with its annotation, at native and at working resolution.

    In class masks, 0 is background, 1+i is pattern i of the set's classes, and 255 is void: such pixels, for example
    those of artefacts, are neither trained on nor measured.

    The names of these attributes are part of the fingerprints of examples, so renaming one would make work directories
    of earlier runs unusable.
    """

    specimen_id: str
    number: int
    split: str
    pattern: int
    intensity: str
    image: UInt8[np.ndarray, "height width"]
    classes: UInt8[np.ndarray, "height width"]
    instances: UInt16[np.ndarray, "height width"]
    working_image: UInt8[np.ndarray, "small_height small_width"]
    working_classes: UInt8[np.ndarray, "small_height small_width"]
    grey_offset: float
    """Grey level that becomes 0."""
    grey_gain: float
    """1 / the span of grey levels above `grey_offset` that becomes 1."""
    kinds: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Kind of each object in `instances`: cell, mitotic_cell or artefact; empty if the data set has no kinds."""

    @property
    def name(self) -> str:
        """The specimen's id and the number of the field, for messages."""
        return f"{self.specimen_id}, field {self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FieldSet:
    """All fields of a data set."""

    name: str
    classes: tuple[str, ...]
    fields: tuple[Field, ...]

    @functools.cached_property
    def items(self) -> tuple[Item, ...]:
        """The fields as protocols see them; specimens that share a field, pixel for pixel, form one group."""
        groups = group_specimens((field.specimen_id, field.image) for field in self.fields)
        return tuple(
            Item(
                identifier=f"{field.specimen_id}-{field.number}",
                specimen=field.specimen_id,
                group=groups[field.specimen_id],
                pattern=field.pattern,
                split=field.split,
            )
            for field in self.fields
        )

    def __len__(self) -> int:
        return len(self.fields)


def load(config: DataConfig) -> FieldSet:
    """Read every field of every split of the data set, which is prepared first if it is absent.

    Raises:
        UsageError: the data set has no class masks.
    """
    builder = prepare.prepare(config.name, config.builder_config, config.data_dir, config.manual_dir)
    features: Any = builder.info.features
    if "class_mask" not in features:
        raise UsageError(
            f"{builder.info.full_name} has no class masks, and a network that segments fields is trained on them"
        )
    classes = tuple(features["pattern"].names)
    fields = tuple(field for split in sorted(builder.info.splits) for field in _read_split(builder, split, config))
    logging.info("%s: %d fields of %d specimens", config.name, len(fields), len({f.specimen_id for f in fields}))
    return FieldSet(name=config.name, classes=classes, fields=fields)


def check_annotated(fields: FieldSet, reader: str) -> None:
    """Raise UsageError, which names the `reader`, if fields have no mask: all pixels of these are void."""
    without = [field.name for field in fields.fields if (field.classes == VOID).all()]
    if without:
        raise UsageError(
            f"{reader} learns from masks, and {len(without)} of {len(fields)} fields of {fields.name} have none, "
            f"such as {without[0]}; add masks, leave these out, or take model.name=mil (configs/mil.py)"
        )


def _read_split(builder: tfds.core.DatasetBuilder, split: str, config: DataConfig) -> Iterator[Field]:
    raw: Any = {name: tfds.decode.SkipDecoding() for name in ("image", "instance_mask", "class_mask")}
    features: Any = builder.info.features
    intensities, kinds = features["intensity"], features["objects"]["kind"]
    examples: Any = cast(Any, builder).as_data_source(split, decoders=raw)
    for example in examples:
        objects = zip(example["objects"]["instance"], example["objects"]["kind"], strict=True)
        yield make_field(
            image=select_channel(decode(example["image"]), config.channel),
            classes=decode(example["class_mask"]),
            instances=decode(example["instance_mask"]),
            specimen_id=os.fsdecode(example["specimen_id"]),
            number=int(example["field"]),
            split=split,
            pattern=int(example["pattern"]),
            intensity=intensities.int2str(int(example["intensity"])),
            kinds={int(instance): kinds.int2str(int(kind)) for instance, kind in objects},
            config=config,
        )


def make_field(*, image: np.ndarray, classes: np.ndarray, instances: np.ndarray, config: DataConfig, **truth) -> Field:
    """Make a field with its copies at working resolution and its grey-level normalisation; `image` is uint8 [H, W]."""
    working, offset, gain = working_image(image, config)
    small = cv2.resize(classes, working.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return Field(
        image=image,
        classes=classes,
        instances=instances,
        working_image=working,
        working_classes=void_near_frame(small, round(config.cut_cell_margin * config.scale)),
        grey_offset=offset,
        grey_gain=gain,
        **truth,
    )


def void_near_frame(classes: UInt8[np.ndarray, "height width"], margin: int) -> UInt8[np.ndarray, "height width"]:
    """The class mask, with void in place of background nearer than `margin` pixels to the frame."""
    inside = np.zeros(classes.shape, bool)
    inside[margin : classes.shape[0] - margin, margin : classes.shape[1] - margin] = True
    return np.where((classes == 0) & ~inside, np.uint8(VOID), classes)


def decode(png: bytes) -> np.ndarray:
    """Pixels of an encoded image as they are stored: [H, W] or [H, W, 3] in RGB order, uint8 or uint16."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UsageError(
            "an image of the prepared data set cannot be decoded; delete the prepared data set and build it again"
        )
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def select_channel(image: np.ndarray, channel: str) -> UInt8[np.ndarray, "height width"]:
    """The grey image that networks read: the mean of the channels, or the green one (FITC signal)."""
    if image.ndim == 2:
        return image
    if channel == "green":
        return np.ascontiguousarray(image[..., 1])
    return np.rint(image.mean(axis=-1)).astype(np.uint8)


def working_image(
    image: UInt8[np.ndarray, "height width"], config: DataConfig
) -> tuple[UInt8[np.ndarray, "small_height small_width"], float, float]:
    """The image that networks read, at working resolution, its grey level that becomes 0, and 1 / the span to 1."""
    if config.normalise != "log":
        working = resize_image(image, config.scale)
        return working, *grey_normalisation(working, config)
    # The logarithm of the average is taken before rounding, because dim specimens have few grey levels.
    small = resize_image(image.astype(np.float32), config.scale)
    logarithm = log_over_background(small, config.background_window * config.scale)
    background, top = np.percentile(logarithm, [50, config.top_percentile])
    level = 1 + (logarithm - background) / max(top - background, _MIN_LOG_SPAN)
    return np.clip(np.rint(_LOG_LEVELS * level), 0, 255).astype(np.uint8), _LOG_LEVELS, 1 / _LOG_LEVELS


def resize_image(
    image: Shaped[np.ndarray, "height width"], scale: float
) -> Shaped[np.ndarray, "small_height small_width"]:
    """The image shrunk by `scale` in (0, 1], by area averages."""
    if scale == 1.0:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def grey_normalisation(image: UInt8[np.ndarray, "height width"], config: DataConfig) -> tuple[float, float]:
    """The grey level that becomes 0, and 1 / the span that becomes 1 (see `DataConfig.normalise`)."""
    if config.normalise == "none":
        return 0.0, 1 / 255
    background, top = percentiles(image, [50, config.top_percentile])
    return float(background), float(1 / max(top - background, MIN_GREY_SPAN))
