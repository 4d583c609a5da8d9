"""Builds a data set from its owner's files, and prints what it contains.

python -m scripts.prepare_data --name=icpr2012 --manual_dir=DIR [--data_dir=DIR] [--builder_config=cells]
"""

from collections.abc import Sequence

from absl import flags, logging

from hep2jax.data.sets import prepare
from tfds_builders import BUILDERS


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_enum("name", None, sorted(BUILDERS), "Name of the data set.", required=True)
    flags.DEFINE_string("builder_config", "", "Named configuration of the data set; empty: its first.")
    flags.DEFINE_string(
        "data_dir", None, "Directory of the prepared data sets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets."
    )
    flags.DEFINE_string("manual_dir", None, "Directory of the owner's files, for data sets that need a licence.")


def main(argv: Sequence[str]) -> None:
    """Prepare the data set that the flags name and print its summary."""
    del argv
    logging.set_verbosity(logging.ERROR)  # the summary lists what is missing, so warnings would repeat it
    print(summary())


def summary() -> str:
    """Prepare the data set and describe it, with a line for each split and for everything that is missing."""
    options = flags.FLAGS
    builder = prepare.prepare(options.name, options.builder_config, options.data_dir, options.manual_dir)
    lines = [f"{builder.info.full_name} in {builder.data_dir}"]
    for split, (examples, specimens) in prepare.count(builder).items():
        lines.append(f"  {split}: {examples} examples of {specimens} specimens")
    return "\n".join(lines + [f"  missing: {line}" for line in prepare.missing(builder)])
