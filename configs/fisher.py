"""`fisher`, the texture reader of cells: Fisher vectors of local descriptors and kernel ridge, fitted in one piece.

On cells cut from the synthetic specimens it takes a minute on a CPU. Variants, for which the directory of the original
files is given with --config.data.manual_dir=DIR:

* `icpr2014`: I3A Task 1, one of five folds of specimens held out; `scripts.cross_validate` runs all of them.
* `icpr2014_whole`: all cells of I3A Task 1, to be learned from along with other cells. They are all in the training
  split, so it is the only split that can be evaluated.
* `icpr2012`: cells of the ICPR 2012 contest, one specimen of its training half held out, learned along with those of
  `icpr2014_whole`, which must have run before; `scripts.cross_validate` runs all 14. The settings were compared on
  these 14 specimens (docs/fisher.md).
"""

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, check_variant

VARIANTS = ("icpr2014", "icpr2014_whole", "icpr2012")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = Config(
        data=DataConfig(cell_fit="frame", crop_size=0),
        model=ModelConfig(name="fisher"),
        evaluation=EvaluationConfig(batch_size=48),
    )
    config.loss.class_balance = 1.0
    if variant == "icpr2014":
        config.data.name, config.data.protocol, config.data.num_folds = "icpr2014_task1", "kfold", 5
    elif variant == "icpr2014_whole":
        config.data.name, config.data.protocol = "icpr2014_task1", "contest"
        config.fisher.rings, config.fisher.cells_per_specimen = 1.0, 40
    elif variant == "icpr2012":
        config.data.name, config.data.builder_config, config.data.channel = "icpr2012", "cells", "green"
        config.data.protocol, config.data.scale = "loso", 0.62  # nuclei of 77 pixels become 48, as in I3A
        config.model.init_from = "runs/fisher-icpr2014_whole"
        config.fisher.rings, config.fisher.shape, config.fisher.ridge = 1.0, 0.15, 10.0
        config.fisher.cells_per_specimen = 0
    return config
