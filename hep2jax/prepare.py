"""Builds a data set from its owner's files, and says what it holds.

python -m scripts.prepare_data --name=icpr2012 --manual_dir=DIR [--data_dir=DIR] [--builder_config=cells]
"""

from collections.abc import Sequence

from absl import flags, logging

from hep2jax.data import prepare
from tfds_builders import BUILDERS


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_enum("name", None, sorted(BUILDERS), "Data set.", required=True)
    flags.DEFINE_string("builder_config", "", "Its named configuration; empty: specimens.")
    flags.DEFINE_string(
        "data_dir", None, "Where prepared sets are kept; default: $TFDS_DATA_DIR or ~/tensorflow_datasets."
    )
    flags.DEFINE_string("manual_dir", None, "The owner's directory tree, for sets that need a licence.")


def main(argv: Sequence[str]) -> None:
    """Prepare what the flags name and print its summary."""
    del argv
    logging.set_verbosity(logging.ERROR)  # the summary says what is missing
    print(summary())


def summary() -> str:
    """Prepare the set and describe it, a line for each split and for each thing that is missing."""
    options = flags.FLAGS
    builder = prepare.prepare(options.name, options.builder_config, options.data_dir, options.manual_dir)
    lines = [f"{builder.info.full_name} in {builder.data_dir}"]
    for split, (examples, specimens) in prepare.count(builder).items():
        lines.append(f"  {split}: {examples} examples of {specimens} specimens")
    return "\n".join(lines + [f"  missing: {line}" for line in prepare.missing(builder)])
