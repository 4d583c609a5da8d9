"""The system to submit to the ICPR 2012 contest for its specimens, trained on the complete training half.

`dsfcn` finds the cells, and a reader of single cells says which pattern they have; its work directory is
runs/icpr2012-cell_reader. Both were selected by cross-validation inside the training half (docs/fields.md,
docs/fisher.md). `make icpr2012 MANUAL_DIR=DIR` trains both.
"""

from hep2jax.config import Config, check_variant

from . import fields

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = fields.get_config("dsfcn")
    config.data.protocol = "contest"
    config.evaluation.cell_reader = "runs/icpr2012-cell_reader"
    return config
