"""Trains and measures every system that reads whole specimens, all on the same division, and writes one table.

    python -m scripts.compare_specimens --data=hep2_synthetic [--workdir=runs/compare] [--write=RESULTS.md]
    python -m scripts.compare_specimens --data=icpr2012 --manual_dir=DIR --folds=7 [...]

The synthetic set is divided as it comes (train, test); real ones into folds of specimens. What is finished in the work
directory is not done again: an interrupted comparison goes on, and a further system costs only itself. What was read of
other specimens or with other settings is read again; what was trained so is refused. The last line is one JSON object.
"""

import json
import pathlib
from collections.abc import Sequence

from absl import flags

from hep2jax import cli
from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.models import pretrained
from hep2jax.specimens import comparison
from hep2jax.specimens.systems import ImageNetFeatures
from hep2jax.training import workdir
from scripts import documents, specimen_systems

_DATA = flags.DEFINE_enum("data", "hep2_synthetic", list(specimen_systems.PARTS), "Data set.")
_BUILDER_CONFIG = flags.DEFINE_string("builder_config", "", "Its named configuration; empty: its specimens.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared sets are kept.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "The owner's directory tree, for sets that need a licence.")
_FOLDS = flags.DEFINE_integer("folds", 7, "Folds of specimens, for real sets.")
_SYSTEMS = flags.DEFINE_string("systems", "", "Shell patterns over the systems' names, separated by commas.")
_SET = flags.DEFINE_multi_string("set", [], "PART.section.key=value: a key of a part's configuration; once a key.")
_FEATURES = flags.DEFINE_enum(
    "feature_network", pretrained.DEFAULT, pretrained.NAMES, "Published network whose features systems read."
)
_WEIGHTS = flags.DEFINE_string(
    "feature_weights", None, "File of its weights: torchvision's .pth or .safetensors; none: the installed package."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/compare", "Where everything is kept, in a folder for each data set.")
_WRITE = flags.DEFINE_string("write", None, "A file with lines <!-- table compare_NAME -->.")


def _weights() -> pathlib.Path | None:
    path = pathlib.Path(_WEIGHTS.value) if _WEIGHTS.value else None
    if path and not path.is_file():
        raise UsageError(f"--feature_weights={path}: no such file")
    return path


def main(argv: Sequence[str]) -> None:
    """Compare, print the table and, last, one JSON object."""
    del argv
    cli.prepare_runtime()
    parts = specimen_systems.read_parts(_DATA.value, _SET.value)
    features = ImageNetFeatures(network=_FEATURES.value, weights=_weights())
    systems, unmade = specimen_systems.make_systems(specimen_systems.choose(_SYSTEMS.value), parts, features)
    data = DataConfig(
        name=_DATA.value,
        builder_config=_BUILDER_CONFIG.value,
        data_dir=_DATA_DIR.value,
        manual_dir=_MANUAL_DIR.value,
        channel=parts["pixels"].data.channel,
        normalise="none",
        protocol="contest" if _DATA.value == "hep2_synthetic" else "kfold",
        num_folds=_FOLDS.value,
    )
    name = "_".join(filter(None, (_DATA.value, _BUILDER_CONFIG.value)))
    directory = pathlib.Path(_WORKDIR.value) / name
    fields = field_sets.load(data)
    divided = specimen_systems.divide(data, fields)
    result = comparison.compare(systems, fields, divided, directory)
    result["unavailable"] |= unmade
    result["protocol"] = (
        divided[0].description if len(divided) == 1 else f"{data.protocol}, {len(divided)} folds pooled"
    )
    result["networks"] = {part: config.model.name for part, config in parts.items()} | {"features": features.network}
    result["points_lost_to_finding"] = specimen_systems.points_lost_to_finding(result["systems"])
    workdir.write_json(directory / "figures.json", result)
    table = specimen_systems.render(name, result)
    print(table)
    if _WRITE.value:
        documents.write(pathlib.Path(_WRITE.value), {f"compare_{name}": table})
    print(json.dumps(specimen_systems.summary(name, result)))


if __name__ == "__main__":
    cli.run_app(main)
