"""Build a data set from its owner's files, and say what it holds.

    python -m scripts.prepare_data --name=icpr2012 --manual_dir=DIR [--data_dir=DIR] [--builder_config=cells]

Exit codes: 0 done; 2 wrong use, missing or damaged data (one line on stderr); 1 anything else.
"""

import sys

from absl import app, flags, logging

from hep2jax.data import prepare
from hep2jax.errors import UsageError

_NAME = flags.DEFINE_enum("name", None, sorted(prepare.BUILDERS), "Data set.", required=True)
_BUILDER_CONFIG = flags.DEFINE_string("builder_config", "", "Its named configuration; empty: specimens.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where prepared sets are kept; default: $TFDS_DATA_DIR or ~/tensorflow_datasets."
)
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "The owner's directory tree, for sets that need a licence.")


def main(arguments: list[str]) -> int:
    """Prepare what the flags name, print its summary, return the exit code."""
    logging.set_verbosity(logging.ERROR)  # the summary says what is missing
    try:
        if len(arguments) > 1:
            raise UsageError(f"unexpected argument '{arguments[1]}': flags are written --name=value")
        print(summary())
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def summary() -> str:
    """Prepare the set and describe it, a line for each split and for each thing that is missing."""
    builder = prepare.prepare(_NAME.value, _BUILDER_CONFIG.value, _DATA_DIR.value, _MANUAL_DIR.value)
    lines = [f"{builder.info.full_name} in {builder.data_dir}"]
    for split, (examples, specimens) in prepare.count(builder).items():
        lines.append(f"  {split}: {examples} examples of {specimens} specimens")
    return "\n".join(lines + [f"  missing: {line}" for line in prepare.missing(builder)])


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line; one line and exit code 2 for a bad flag (absl's own parser exits with 1)."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
