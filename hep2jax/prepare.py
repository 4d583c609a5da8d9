"""Builds a data set from its owner's files, or from a folder of your own, and prints what it contains.

python -m scripts.prepare_data --name=icpr2012 --manual_dir=DIR [--data_dir=DIR] [--builder_config=cells]
python -m scripts.prepare_data --name=folder --manual_dir=DIR --check

With --check nothing is kept. Of a folder of your own, every fault is listed or, if there is none, what to type next.
Any other data set is built in a temporary folder, and what is missing is listed.
"""

import collections
import shlex
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging

from hep2jax import progress
from hep2jax.data.sets import fields, prepare
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.specimens import nuclear_size
from tfds_builders import BUILDERS, icap
from tfds_builders.folder import layout, pictures

_MAX_FAULTS = 1000  # lines
_NUCLEUS_OF_PIXEL_NETWORKS = 24  # pixels at working resolution, on ICPR 2012 and on synthetic specimens
_FOLDS = 5


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_enum("name", None, sorted(BUILDERS), "Name of the data set.", required=True)
    flags.DEFINE_string("builder_config", "", "Named configuration of the data set; empty: its first.")
    flags.DEFINE_string(
        "data_dir", None, "Directory of the prepared data sets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets."
    )
    flags.DEFINE_string("manual_dir", None, "Directory of the owner's files, or your own folder (--name=folder).")
    flags.DEFINE_bool("check", False, "Whether to look only for what is wrong or missing, and to keep nothing.")


def main(argv: Sequence[str]) -> None:
    """Prepare or check the data set that the flags name and print its summary."""
    del argv
    logging.set_verbosity(logging.ERROR)  # the summary lists what is missing, so warnings would repeat it
    options = flags.FLAGS
    if options.check and BUILDERS[options.name].belongs_to_user:
        print(_survey(options.name, options.builder_config, options.manual_dir))
    elif options.check:
        with tempfile.TemporaryDirectory() as empty:
            builder = prepare.prepare(options.name, options.builder_config, empty, options.manual_dir)
            print(_summary(builder, f"{builder.info.full_name}, checked; nothing was kept"))
    else:
        builder = prepare.prepare(options.name, options.builder_config, options.data_dir, options.manual_dir)
        print(_summary(builder, f"{builder.info.full_name} in {builder.data_dir}"))


def _summary(builder: tfds.core.DatasetBuilder, head: str) -> str:
    """Describe a prepared data set, with a line for each split, for everything that is missing and for each note."""
    counts = prepare.count(builder).items()
    lines = [f"  {split}: {examples} examples of {specimens} specimens" for split, (examples, specimens) in counts]
    lines += [f"  missing: {line}" for line in prepare.missing(builder)]
    notes = prepare.notes(builder) if BUILDERS[builder.name].belongs_to_user else []
    return "\n".join([head, *lines, *(f"  note: {line}" for line in notes)])


def _survey(name: str, builder_config: str, manual_dir: str | None) -> str:
    """Describe a folder and what to type next.

    Raises:
        UsageError: the folder has faults, each of which has been printed in a line of its own.
    """
    kind = builder_config or prepare.configurations(name)[0]
    found = prepare.survey(name, kind, manual_dir)
    for fault in found.faults[:_MAX_FAULTS]:
        progress.warn(fault)
    if found.faults:
        faults = "1 fault" if len(found.faults) == 1 else f"{len(found.faults)} faults"
        raise UsageError(f"{manual_dir}: {faults} as a folder of {kind}; nothing was written")
    return "\n".join([*_description(found, kind, str(manual_dir)), *_next(found, kind, str(manual_dir))])


def _description(found: pictures.Survey, kind: str, folder: str) -> Iterator[str]:
    rows = found.contents.rows
    yield f"{folder} as a folder of {kind}: {len(rows)} images, no fault"
    width = max(8, *map(len, found.contents.patterns))
    yield f"  {'pattern':{width}}  images  specimens  consensus codes"
    for pattern in found.contents.patterns:
        of_it = [row for row in rows if row.pattern == pattern]
        specimens = len({row.specimen for row in of_it} - {""}) or "unknown"
        yield f"  {pattern:{width}}  {len(of_it):6}  {specimens:>9}  {icap.describe(pattern)}".rstrip()
    sizes = collections.Counter(found.sizes).most_common()
    shown = [f"{width} x {height} ({count})" for (width, height), count in sizes[:3]]
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    yield f"  pixels of an image: {', '.join(shown)}{more}"
    if found.num_objects:
        masks = sum(row.mask is not None for row in rows)
        yield f"  {found.num_objects} objects in {masks} masks; typical diameter {found.nuclear_diameter:.0f} pixels"
    if found.contents.has_splits:
        counts = collections.Counter(row.split for row in rows)
        yield "  column split: " + ", ".join(f"{count} {split}" for split, count in counts.items())
    yield from (f"  note: {line}" for line in found.notes)


def _measured_diameter(rows: Sequence[layout.Row], green: bool) -> float:
    """Median over some images of the diameter in pixels that is measured without masks; 0 if no cell is found."""
    some = (pictures.read(row, layout.SPECIMENS).image for row in evenly_spread(rows, nuclear_size.TRAINING_IMAGES))
    channel = "green" if green else "grey"
    return float(np.median(nuclear_size.measure_each(fields.select_channel(image, channel) for image in some) or [0]))


def _next(found: pictures.Survey, kind: str, folder: str) -> Iterator[str]:
    """The commands that train on the folder, with the options that its images and its table suggest."""
    rows = found.contents.rows
    without_masks = any(row.mask is None for row in rows)
    variant = ":cells" if kind == layout.CELLS else ":images" if without_masks else ""
    options = [f"--config=folder{variant}", f"--config.data.manual_dir={shlex.quote(folder)}"]
    if found.green:
        options.append("--config.data.channel=green")
    if kind == layout.SPECIMENS and (diameter := found.nuclear_diameter or _measured_diameter(rows, found.green)):
        options += [f"--config.data.scale={min(1.0, _NUCLEUS_OF_PIXEL_NETWORKS / diameter):.2f}"]
        options += [] if without_masks else [f"--config.evaluation.nuclear_diameter={diameter:.0f}"]
    specimens = {row.specimen for row in rows}
    divided = found.contents.has_splits
    if divided:
        options.append("--config.data.protocol=contest")
    elif "" in specimens:
        options.append("--config.data.protocol=random_cells")
    elif len(specimens) < _FOLDS:
        options.append(f"--config.data.num_folds={len(specimens)}")
    yield "nothing was written; next:"
    yield f"  hep2jax train {' '.join(options)} --workdir=runs/mine"
    if not divided:
        yield f"  python -m scripts.cross_validate {' '.join(options)} --workdir=runs/mine-folds"
