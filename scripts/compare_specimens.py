"""Trains and evaluates all systems that read whole specimens on the same partitions, and writes one table.

    python -m scripts.compare_specimens --data=hep2_synthetic [--workdir=runs/compare] [--write=RESULTS.md]
    python -m scripts.compare_specimens --data=icpr2012 --manual_dir=DIR --folds=7 [...]

The synthetic set has its own splits (train, test); real sets are divided into folds of specimens. Finished results in
the work directory are reused: an interrupted comparison continues, and an additional system runs alone. Readings of
other specimens or with other settings are computed again, but a network that was trained on other specimens or with
other settings is an error. The last line of the output is one JSON object.
"""

import json
import pathlib
from collections.abc import Sequence

from absl import flags

from hep2jax import cli, files, remote
from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.models import pretrained
from hep2jax.specimens import comparison
from hep2jax.specimens.systems import ImageNetFeatures
from scripts import documents, specimen_systems

_DATA = flags.DEFINE_enum("data", "hep2_synthetic", list(specimen_systems.PARTS), "Data set.")
_BUILDER_CONFIG = flags.DEFINE_string(
    "builder_config", "", "Named configuration of the data set; empty: its specimens."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Directory of the original files, for data sets that need a licence."
)
_FOLDS = flags.DEFINE_integer("folds", 7, "Number of folds of specimens, for real data sets.")
_SYSTEMS = flags.DEFINE_string("systems", "", "Shell patterns of system names, separated by commas.")
_SET = flags.DEFINE_multi_string(
    "set", [], "PART.section.key=value: sets a key in the configuration of a part; repeat it for each key."
)
_FEATURES = flags.DEFINE_enum(
    "feature_network", pretrained.DEFAULT, pretrained.NAMES, "Published network that provides features to some systems."
)
_WEIGHTS = flags.DEFINE_string(
    "feature_weights", None, "File with its weights: torchvision's .pth or .safetensors; none: the installed package."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/compare", "Directory for all results, with a folder for each data set.")
_WRITE = flags.DEFINE_string(
    "write",
    None,
    "A file to write the table into, between lines <!-- table compare_NAME --> and <!-- end compare_NAME -->.",
)


def _weights() -> pathlib.Path | None:
    path = pathlib.Path(_WEIGHTS.value) if _WEIGHTS.value else None
    if path and not path.is_file():
        raise UsageError(f"--feature_weights={path}: no such file")
    return path


def main(argv: Sequence[str]) -> None:
    """Compare the systems, then print the table and, as the last line, one JSON object."""
    del argv
    cli.prepare_runtime()
    parts = specimen_systems.read_parts(_DATA.value, _SET.value)
    features = ImageNetFeatures(network=_FEATURES.value, weights=_weights())
    systems, unavailable = specimen_systems.make_systems(specimen_systems.choose(_SYSTEMS.value), parts, features)
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
    directory = remote.local_folder(_WORKDIR.value, "--workdir") / name
    fields = field_sets.load(data)
    partitions = specimen_systems.divide(data, fields)
    result = comparison.compare(systems, fields, partitions, directory)
    result["unavailable"] |= unavailable
    result["protocol"] = (
        partitions[0].description if len(partitions) == 1 else f"{data.protocol}, {len(partitions)} folds pooled"
    )
    result["networks"] = {part: config.model.name for part, config in parts.items()} | {"features": features.network}
    result["points_lost_to_finding"] = specimen_systems.points_lost_to_finding(result["systems"])
    files.write_json(directory / "figures.json", result)
    table = specimen_systems.render(name, result)
    print(table)
    if _WRITE.value:
        documents.write(pathlib.Path(_WRITE.value), {f"compare_{name}": table})
    print(json.dumps(specimen_systems.summary(name, result)))


if __name__ == "__main__":
    cli.run_app(main)
