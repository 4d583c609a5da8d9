"""The best reader of I3A Task 1 cells of unseen specimens: the mean of a texture reader and of three networks.

The variants are its parts. Each is cross-validated over five groups of specimens, in the folder that the mean expects:

    python -m scripts.cross_validate --config=configs/icpr2014_cells.py:VARIANT --workdir=runs/icpr2014_cells-VARIANT

with the directory of the original files as --config.data.manual_dir=DIR:

* `texture`: `fisher`; three minutes a fold on one core.
* `stretched`: `gao`, as `configs/icpr2014_pretraining.py` trains it; four minutes a fold on one core.
* `framed`: `vggcell` at a quarter of its width on frames of the cells, with averages over their regions; two minutes.
* `along`: the same, learned along with the cells of ICPR 2012, whose directory is --config.data.along_manual_dir=DIR.
* `networks`: the mean of the three networks.

Without a variant: the mean of `texture` and `networks`.
"""

from hep2jax.config import Config, check_variant

from . import fisher, icpr2014_pretraining, vggcell
from .icpr2012_cells import mean_of

_NETWORKS = ("stretched", "framed", "along")
VARIANTS = ("texture", *_NETWORKS, "networks")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    if variant == "texture":
        config = fisher.get_config("icpr2014")
    elif variant == "stretched":
        config = icpr2014_pretraining.get_config()
        config.evaluation.dihedral = True
    elif variant in ("framed", "along"):
        config = _framed()
    else:
        members = _NETWORKS if variant == "networks" else ("texture", "networks")
        config = mean_of(f"runs/icpr2014_cells-{name}/fold-{{fold}}" for name in members)
    if variant == "along":
        config.data.along, config.data.along_scale = "icpr2012", 0.62  # nuclei of 77 pixels become 48, as in I3A
    config.data.name, config.data.protocol, config.data.num_folds = "icpr2014_task1", "kfold", 5
    return config


def _framed() -> Config:
    config = vggcell.get_config("icpr2014")
    config.model.width, config.model.mixstyle, config.augment.mixup = 0.25, 0.5, 0.4
    config.train.num_steps, config.train.global_batch_size, config.train.checkpoint_every = 300, 64, 300
    return config
