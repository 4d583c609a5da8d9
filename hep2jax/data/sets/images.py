"""Whole images with none, one or several patterns of each, decoded once into host memory; masks are not read."""

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
    """One image of a specimen with its labels."""

    identifier: str
    """The owner's name of the file, else the specimen's with the number of the field; unique within the set."""
    specimen: str
    """Empty where the set does not say."""
    group: str
    """The specimen, or one name for specimens that share a picture, pixel for pixel."""
    split: str
    intensity: str
    image: UInt8[np.ndarray, "height width"]
    """At working resolution."""
    tone_curve: Float32[np.ndarray, " 4"]
    """Grey offset, gain, exponent, shift; see `steps.normalise`."""
    patterns: Float32[np.ndarray, " patterns"]
    """1 for each pattern that the image has, 0 for the others."""
    patterns_known: bool
    """Whether `patterns` is all that there is; where not, its zeros say nothing. True in sets that do not ask."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """All images of a data set."""

    name: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """The images as protocols see them: the pattern that fewest images have goes before an image's others."""
        counts = np.sum([image.patterns for image in self.images], axis=0)
        return tuple(_item(image, counts) for image in self.images)

    def __len__(self) -> int:
        return len(self.images)


def _item(image: LabelledImage, counts: np.ndarray) -> Item:
    own = sorted(np.flatnonzero(image.patterns).tolist(), key=lambda k: (counts[k], k)) or [len(counts)]
    return Item(
        identifier=image.identifier,
        specimen=image.specimen,
        group=image.group,
        pattern=own[0],
        further=tuple(own[1:]),
        split=image.split,
    )


def has_several(config: DataConfig) -> bool:
    """Whether images of the configured set may have several patterns, or none; the set need not be there."""
    return "patterns" in prepare.features(config.name, config.builder_config)


def usable(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """The images that can be learnt from and measured, and what to say of the others.

    Left out are images whose patterns are not all known and, of a set with specimens, images of an unknown one, which
    no protocol can keep on one side.

    Raises:
        UsageError: no image is left.
    """
    known = [image for image in images.images if image.patterns_known]
    owned = [image for image in known if image.specimen] or known
    reasons = {
        "their patterns are not all known": len(images) - len(known),
        "their specimen is not known": len(known) - len(owned),
    }
    if not owned:
        raise UsageError(f"{images.name}: of none of its {len(images)} images all patterns are known")
    notes = tuple(f"{number} of {len(images)} images left out: {why}" for why, number in reasons.items() if number)
    return dataclasses.replace(images, images=tuple(owned)), notes


def load(config: DataConfig) -> ImageSet:
    """Read every image of every split that the data set has, building the set first if it is absent.

    Images are grey, by `config.channel`, and shrunk by `config.scale`.

    Raises:
        UsageError: the set has no images of several patterns.
    """
    builder = prepare.prepare(config.name, config.builder_config, config.data_dir, config.manual_dir)
    features: Any = builder.info.features
    if "patterns" not in features:
        raise UsageError(f"{builder.info.full_name} has one pattern an image, not several")
    classes = tuple(features["patterns"].feature.names)
    found = [image for split in sorted(builder.info.splits) for image in _read_split(builder, split, config)]
    groups = group_specimens((image.specimen, image.image) for image in found)
    images = tuple(dataclasses.replace(image, group=groups[image.specimen]) for image in found)
    logging.info("%s: %d images of %d specimens", config.name, len(images), len({i.specimen for i in images}))
    return ImageSet(name=config.name, classes=classes, images=images)


def _read_split(builder: tfds.core.DatasetBuilder, split: str, config: DataConfig) -> Iterator[LabelledImage]:
    features: Any = builder.info.features
    raw: Any = {name: tfds.decode.SkipDecoding() for name in ("image", *_MASKS) if name in features}
    num_patterns = features["patterns"].feature.num_classes
    examples: Any = cast(Any, builder).as_data_source(split, decoders=raw)
    for example in examples:
        grey = field_sets.select_channel(field_sets.decode(example["image"]), config.channel)
        working = field_sets.resize_image(grey, config.scale)
        patterns = np.zeros(num_patterns, np.float32)
        patterns[example["patterns"]] = 1
        yield LabelledImage(
            identifier=_identifier(example),
            specimen=os.fsdecode(example["specimen_id"]),
            group="",
            split=split,
            intensity=features["intensity"].int2str(int(example["intensity"])),
            image=working,
            tone_curve=np.array([*field_sets.grey_normalisation(working, config), 1.0, 0.0], np.float32),
            patterns=patterns,
            patterns_known=bool(example.get("patterns_known", True)),
        )


def _identifier(example: Any) -> str:
    if "name" in example:
        return os.fsdecode(example["name"])
    return f"{os.fsdecode(example['specimen_id'])}-{int(example['field'])}"
