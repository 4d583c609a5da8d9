"""TFDS builder of the synthetic HEp-2 specimens (ArrayRecord, no TensorFlow)."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.hep2_synthetic import generator

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(kw_only=True)
class SyntheticConfig(tfds.core.BuilderConfig):
    """Size and seed of the synthetic data set.

    Attributes:
      height, width: size of a field in pixels.
      fields: number of fields of a specimen.
      train, validation, test: number of specimens of each pattern in each split; they alternate between
        positive and intermediate.
      nuclear_diameter: median nuclear diameter in pixels (48: as with a 20x objective).
      seed: seed of the whole data set; specimens of different splits never share a seed.
    """

    height: int = 416
    width: int = 416
    fields: int = 2
    train: int = 12
    validation: int = 2
    test: int = 4
    nuclear_diameter: float = 48.0
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """Synthetic HEp-2 specimens; one example is one field of a specimen."""

    VERSION = tfds.core.Version("1.0.0")
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
    ]

    def __init__(self, *, file_format: str | None = "array_record", **kwargs: Any):
        """Makes a builder of ArrayRecord: TFDS's own default, TFRecord, cannot be written without TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
                "instance_mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
                "class_mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
                "pattern": tfds.features.ClassLabel(names=generator.PATTERNS),
                "intensity": tfds.features.ClassLabel(names=generator.INTENSITIES),
                "specimen_id": tfds.features.Text(),
                "field": np.int32,
                "objects": tfds.features.Sequence(
                    {"instance": np.int32, "kind": tfds.features.ClassLabel(names=generator.KINDS)}
                ),
            }
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=None)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in SPLITS if getattr(self.builder_config, split)}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        assert isinstance(config, SyntheticConfig)
        for pattern in generator.PATTERNS:
            for number in range(getattr(config, split)):
                yield from _specimen_examples(config, split, pattern, number)


def _specimen_examples(
    config: SyntheticConfig, split: str, pattern: str, number: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, example) for each field of specimen `number` of a pattern in a split."""
    specimen_id = f"{split}-{pattern}-{number:02d}"
    intensity = ("positive", "intermediate")[number % 2]
    fields = generator.generate_specimen(
        _specimen_seed(config.seed, split, number),
        pattern,
        intensity,
        height=config.height,
        width=config.width,
        fields=config.fields,
        nuclear_diameter=config.nuclear_diameter,
    )
    for index, field in enumerate(fields):
        labels = {"pattern": pattern, "intensity": intensity, "specimen_id": specimen_id, "field": index}
        yield f"{specimen_id}-{index}", _encode_field(field) | labels


def _specimen_seed(seed: int, split: str, number: int) -> int:
    """Returns a seed that no other specimen of the data set has (with up to 10,000 specimens of a pattern)."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * 10_000 + number


def _encode_field(field: generator.Field) -> dict[str, Any]:
    objects = [{"instance": item.instance, "kind": item.kind} for item in field.objects]
    return {
        "image": _png(field.image),
        "instance_mask": _png(field.instance_mask),
        "class_mask": _png(field.class_mask),
        "objects": objects,
    }


def _png(image: np.ndarray) -> io.BytesIO:
    """Encodes a uint8 or uint16 image as PNG; TFDS takes a file object's bytes as they are."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of {image.shape} {image.dtype} as PNG")
    return io.BytesIO(data.tobytes())
