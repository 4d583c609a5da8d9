"""A folder of one's own: name it with --config.data.manual_dir=DIR; docs/your-own-folder.md describes it.

One of five folds of specimens is held out; `scripts.cross_validate` runs all of them. `hep2jax prepare --name=folder
--manual_dir=DIR --check` prints the keys that depend on the images: `data.scale`, with which nuclei have the size in
pixels that these networks were measured with, `evaluation.nuclear_diameter`, `data.channel` and `data.protocol`.

Without a variant: fields with masks of their cells, read by `dsfcn`, the best of four networks for pixels on ICPR 2012.
Variants:

* `images`: fields without masks, read by `mil`.
* `cells`: crops of single cells, read by the network of Gao et al.; `data.builder_config=specimens` cuts the cells
  from fields instead.
* `fisher`: the same cells, which must have masks, read by the texture reader, the best one on I3A Task 1 with
  specimens held out. Take a `data.scale` with which nuclei have 48 pixels.
"""

from hep2jax.config import Config, check_variant

from . import cnn, dsfcn, fisher, mil

VARIANTS = ("images", "cells", "fisher")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    reader = {"images": mil, "cells": cnn, "fisher": fisher}.get(variant, dsfcn)
    config = reader.get_config()
    config.data.name, config.data.protocol, config.data.num_folds = "folder", "kfold", 5
    if not variant:  # the lengths of training are those for a few dozen specimens of ICPR 2012
        config.train.num_steps = 300
        config.evaluation.dihedral = True
    elif variant == "images":
        config.train.num_steps = 600
    elif variant == "cells":
        config.train.num_steps, config.train.log_every, config.train.checkpoint_every = 500, 100, 500
        config.evaluation.gallery_specimens = 8
    return config
