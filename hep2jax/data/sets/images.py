"""Images with zero, one or several patterns each, decoded once into host memory; masks are not read."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Float32, UInt8

from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets import prepare
from hep2jax.data.sets.items import Item, group_specimens
from hep2jax.errors import UsageError

_MASKS = ("instance_mask", "class_mask")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """One image of a specimen with its labels.

    The names of these attributes are part of the fingerprints of examples, so renaming one would make work directories
    of earlier runs unusable.
    """

    identifier: str
    """The owner's file name if there is one, otherwise the specimen and the number of the field; unique in the set."""
    specimen: str
    """Empty if it is not known."""
    group: str
    """The specimen, or one name for all specimens that share an image, pixel for pixel."""
    split: str
    intensity: str
    image: UInt8[np.ndarray, "height width"]
    """At working resolution."""
    tone_curve: Float32[np.ndarray, " 4"]
    """Grey offset, gain, exponent, shift; see `steps.normalise`."""
    patterns: Float32[np.ndarray, " patterns"]
    """1 for each pattern that the image has, 0 for the others."""
    patterns_known: bool
    """Whether `patterns` is complete; if not, its zeros mean nothing. True in data sets without this label."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """All images of a data set."""

    name: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """The images as protocols see them; the rarest pattern of an image is its `Item.pattern`."""
        counts = np.sum([image.patterns for image in self.images], axis=0)
        return tuple(_item(image, counts) for image in self.images)

    def __len__(self) -> int:
        return len(self.images)


def _item(image: LabelledImage, counts: np.ndarray) -> Item:
    """The image as an item; `counts` are the numbers of images with each pattern."""
    rarest_first = sorted(np.flatnonzero(image.patterns).tolist(), key=lambda k: (counts[k], k)) or [len(counts)]
    return Item(
        identifier=image.identifier,
        specimen=image.specimen,
        group=image.group,
        pattern=rarest_first[0],
        further=tuple(rarest_first[1:]),
        split=image.split,
    )


def is_multilabel(config: DataConfig) -> bool:
    """Whether images of the configured data set may have several patterns or none; it does not have to be prepared."""
    return "patterns" in prepare.features(config.name, config.builder_config)


def usable(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """The images that can be used for training and evaluation, and notes on how many are left out, and why.

    Images whose patterns are not all known are left out. If the data set has specimens, images of unknown specimens are
    left out too, because no protocol can keep an unknown specimen in one split.

    Raises:
        UsageError: no image is left.
    """
    labelled = [image for image in images.images if image.patterns_known]
    with_specimen = [image for image in labelled if image.specimen] or labelled
    reasons = {
        "their patterns are not all known": len(images) - len(labelled),
        "their specimen is not known": len(labelled) - len(with_specimen),
    }
    if not with_specimen:
        raise UsageError(f"{images.name}: there is no image, of its {len(images)}, whose patterns are all known")
    notes = tuple(f"{number} of {len(images)} images left out: {why}" for why, number in reasons.items() if number)
    return dataclasses.replace(images, images=tuple(with_specimen)), notes


def load(config: DataConfig) -> ImageSet:
    """Read every image of every split of the data set, which is prepared first if it is absent.

    Images are reduced to grey (`config.channel`) and shrunk (`config.scale`).

    Raises:
        UsageError: images of the data set have exactly one pattern.
    """
    builder = prepare.prepare(config.name, config.builder_config, config.data_dir, config.manual_dir)
    features: Any = builder.info.features
    if "patterns" not in features:
        raise UsageError(f"{builder.info.full_name} has exactly one pattern for each image, not several")
    classes = tuple(features["patterns"].feature.names)
    ungrouped = [image for split in sorted(builder.info.splits) for image in _read_split(builder, split, config)]
    groups = group_specimens((image.specimen, image.image) for image in ungrouped)
    images = tuple(dataclasses.replace(image, group=groups[image.specimen]) for image in ungrouped)
    logging.info("%s: %d images of %d specimens", config.name, len(images), len({i.specimen for i in images}))
    return ImageSet(name=config.name, classes=classes, images=images)


def _read_split(builder: tfds.core.DatasetBuilder, split: str, config: DataConfig) -> Iterator[LabelledImage]:
    features: Any = builder.info.features
    raw: Any = {name: tfds.decode.SkipDecoding() for name in ("image", *_MASKS) if name in features}
    num_patterns = features["patterns"].feature.num_classes
    examples: Any = cast(Any, builder).as_data_source(split, decoders=raw)
    for example in examples:
        grey = field_sets.select_channel(field_sets.decode(example["image"]), config.channel)
        working, offset, gain = field_sets.working_image(grey, config)
        patterns = np.zeros(num_patterns, np.float32)
        patterns[example["patterns"]] = 1
        yield LabelledImage(
            identifier=_identifier(example),
            specimen=os.fsdecode(example["specimen_id"]),
            group="",
            split=split,
            intensity=features["intensity"].int2str(int(example["intensity"])),
            image=working,
            tone_curve=np.array([offset, gain, 1.0, 0.0], np.float32),
            patterns=patterns,
            patterns_known=bool(example.get("patterns_known", True)),
        )


def _identifier(example: Any) -> str:
    if "name" in example:
        return os.fsdecode(example["name"])
    return f"{os.fsdecode(example['specimen_id'])}-{int(example['field'])}"
