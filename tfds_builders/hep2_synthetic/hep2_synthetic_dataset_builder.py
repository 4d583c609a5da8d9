"""TFDS builder of the synthetic HEp-2 specimens (ArrayRecord, no TensorFlow)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders import fields
from tfds_builders.hep2_synthetic import generator
from tfds_builders.pixels import encode_png
from tfds_builders.records import ArrayRecordBuilder

SPLITS = ("train", "validation", "test")

NEGATIVES = 4
"""Negative specimens of a mixed set for each specimen of a pattern or pair."""

STRAYING = generator.FieldVariation(exposure=0.5, defocus=0.05, density=0.35, illumination=0.3, badly_stained=0.4)
"""How the fields of one specimen differ in the configuration `fields`: so much that a single one often misleads."""


@dataclasses.dataclass(kw_only=True)
class SyntheticConfig(tfds.core.BuilderConfig):
    """Size and seed of the synthetic data set.

    Attributes:
      height, width: size of a field in pixels.
      fields: number of fields of a specimen.
      train, validation, test: number of specimens of each pattern (and pair, if mixed) in each split; they
        alternate between positive and intermediate.
      nuclear_diameter: median nuclear diameter in pixels (48: as with a 20x objective).
      variation: how much the fields of a specimen differ from it.
      mixed: whether there are also specimens of two patterns (`generator.PAIRS`) and of none, the latter `NEGATIVES`
        times as many as of each pattern.
      seed: seed of the whole data set; specimens of different splits never share a seed.
    """

    height: int = 416
    width: int = 416
    fields: int = 2
    train: int = 12
    validation: int = 2
    test: int = 4
    nuclear_diameter: float = 48.0
    variation: generator.FieldVariation = generator.STEADY
    mixed: bool = False
    seed: int = 0


class Builder(ArrayRecordBuilder):
    """Synthetic HEp-2 specimens; one example is one field of a specimen."""

    VERSION = tfds.core.Version("1.0.0")  # raise it with every change to the images: prepared data are found by it
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SyntheticConfig(name="specimens", description="Small fields: 416 x 416 px, 2 a specimen."),
        SyntheticConfig(
            name="specimens_tiny",
            description="For tests: one field of 160 x 160 px, 2 + 1 + 1 specimens of a pattern.",
            height=160,
            width=160,
            fields=1,
            train=2,
            validation=1,
            test=1,
        ),
        SyntheticConfig(
            name="specimens_large",
            description="Fields of a whole camera frame: 1040 x 1388 px, 4 a specimen.",
            height=1040,
            width=1388,
            fields=4,
        ),
        SyntheticConfig(
            name="fields",
            description="Several fields that differ much: 416 x 416 px, 4 a specimen.",
            fields=4,
            train=16,
            validation=8,
            test=8,
            variation=STRAYING,
            seed=1,
        ),
        SyntheticConfig(
            name="fields_tiny",
            description="For tests: 4 fields of 160 x 160 px that differ much, 2 + 1 + 1 specimens of a pattern.",
            height=160,
            width=160,
            fields=4,
            train=2,
            validation=1,
            test=1,
            variation=STRAYING,
            seed=1,
        ),
        SyntheticConfig(
            name="mixed",
            description="Specimens of one pattern, two or none: 416 x 416 px, 2 a specimen.",
            train=8,
            validation=2,
            test=4,
            mixed=True,
            seed=2,
        ),
        SyntheticConfig(
            name="mixed_tiny",
            description="For tests: one field of 160 x 160 px, 1 + 1 + 1 specimens of a pattern or pair.",
            height=160,
            width=160,
            fields=1,
            train=1,
            validation=1,
            test=1,
            mixed=True,
            seed=2,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(_mixed_features() if self._config.mixed else _features())
        return self.dataset_info_from_configs(features=features, supervised_keys=None)

    @property
    def _config(self) -> SyntheticConfig:
        assert isinstance(self.builder_config, SyntheticConfig)
        return self.builder_config

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in SPLITS if getattr(self.builder_config, split)}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for patterns in combinations(self._config):
            repeats = 1 if patterns else NEGATIVES
            for number in range(repeats * getattr(self._config, split)):
                yield from specimen_examples(self._config, split, patterns, number)


def _features() -> dict[str, Any]:
    return fields.features(generator.PATTERNS, generator.INTENSITIES)


def _mixed_features() -> dict[str, Any]:
    """The features with negative as additional pattern and intensity, and with all patterns of the specimen."""
    common = fields.features(generator.LABELS, (*generator.INTENSITIES, generator.NEGATIVE))
    return common | {"patterns": tfds.features.Sequence(tfds.features.ClassLabel(names=generator.PATTERNS))}


def combinations(config: SyntheticConfig) -> list[tuple[str, ...]]:
    """The patterns that a specimen may have, the main one first: one; in mixed sets also two or none."""
    single = [(pattern,) for pattern in generator.PATTERNS]
    return [*single, *generator.PAIRS, ()] if config.mixed else single


def specimen_examples(
    config: SyntheticConfig, split: str, patterns: tuple[str, ...], number: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, example) for each field of specimen `number` of one of the `combinations` in a split."""
    specimen_id = f"{split}-{'-'.join(patterns) or generator.NEGATIVE}-{number:02d}"
    labels: dict[str, Any] = {
        "pattern": patterns[0] if patterns else generator.NEGATIVE,
        "intensity": _intensity(patterns, number),
        "specimen_id": specimen_id,
    }
    labels |= {"patterns": list(patterns)} if config.mixed else {}
    for index, field in enumerate(draw_fields(config, split, patterns, number)):
        yield f"{specimen_id}-{index}", _encode_field(field) | labels | {"field": index}


def draw_fields(config: SyntheticConfig, split: str, patterns: tuple[str, ...], number: int) -> list[generator.Field]:
    """Draws the fields of specimen `number` of one of the `combinations` in a split."""
    main, second = (*(patterns or (generator.NEGATIVE,)), "")[:2]
    return generator.generate_specimen(
        _specimen_seed(config.seed, split, number),
        main,
        _intensity(patterns, number),
        second=second,
        height=config.height,
        width=config.width,
        fields=config.fields,
        nuclear_diameter=config.nuclear_diameter,
        variation=config.variation,
    )


def _intensity(patterns: tuple[str, ...], number: int) -> str:
    return ("positive", "intermediate")[number % 2] if patterns else generator.NEGATIVE


def _specimen_seed(seed: int, split: str, number: int) -> int:
    """Returns a seed that no other specimen of the data set has (with up to 10,000 specimens of a pattern)."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * 10_000 + number


def _encode_field(field: generator.Field) -> dict[str, Any]:
    objects = [{"instance": item.instance, "kind": item.kind} for item in field.objects]
    return {
        "image": encode_png(field.image),
        "instance_mask": encode_png(field.instance_mask),
        "class_mask": encode_png(field.class_mask),
        "objects": objects,
    }
