"""TFDS builders, one package for each data set; they import nothing of hep2jax and need no TensorFlow.

Importing this package registers every builder, after which `tfds.builder("hep2_synthetic", file_format="array_record")`
works.
"""

from tfds_builders.aida.aida_dataset_builder import Builder as Aida
from tfds_builders.folder.folder_dataset_builder import Builder as Folder
from tfds_builders.hep2_synthetic.hep2_synthetic_dataset_builder import Builder as Hep2Synthetic
from tfds_builders.icpr2012.icpr2012_dataset_builder import Builder as Icpr2012
from tfds_builders.icpr2014_task1.icpr2014_task1_dataset_builder import Builder as Icpr2014Task1
from tfds_builders.icpr2014_task2.icpr2014_task2_dataset_builder import Builder as Icpr2014Task2
from tfds_builders.records import ArrayRecordBuilder
from tfds_builders.snphep2.snphep2_dataset_builder import Builder as Snphep2

BUILDERS: dict[str, type[ArrayRecordBuilder]] = {
    builder.name: builder for builder in (Hep2Synthetic, Icpr2012, Icpr2014Task1, Icpr2014Task2, Snphep2, Aida, Folder)
}
"""The builder of each data set by its TFDS name."""
