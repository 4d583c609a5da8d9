"""Code shared by all builders: the file format of their records."""

from typing import Any, ClassVar

import tensorflow_datasets as tfds


class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that writes ArrayRecord files; the default of TFDS, TFRecord, cannot be written without TensorFlow."""

    belongs_to_user: ClassVar[bool] = False
    """Whether `manual_dir` is a folder of the user's own, one of many, whose files are edited in place. Each folder
    then has a prepared data set of its own, which is built again when the content of any file changes."""

    def __init__(self, *, file_format: str | None = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)
