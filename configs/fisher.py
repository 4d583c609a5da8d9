"""`fisher`, the texture reader of cells: Fisher vectors of local descriptors and kernel ridge, fitted in one piece.

On cells cut from the synthetic specimens it takes a minute or two on a CPU. Variants for the owners' files, whose
directory is given with --config.data.manual_dir=DIR: `icpr2014` for I3A Task 1 (five folds of specimens, one of them
held out; scripts.cross_validate runs all), `icpr2012` for the contest's training half.
"""

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, check_variant

VARIANTS = ("icpr2014", "icpr2012")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = Config(
        data=DataConfig(cell_fit="frame", crop_size=0),
        model=ModelConfig(name="fisher"),
        evaluation=EvaluationConfig(batch_size=48),
    )
    config.loss.class_balance = 0.7
    if variant == "icpr2014":
        config.data.name, config.data.protocol, config.data.num_folds = "icpr2014_task1", "kfold", 5
    if variant == "icpr2012":
        config.data.name, config.data.builder_config, config.data.channel = "icpr2012", "cells", "green"
        config.data.protocol, config.data.scale = "loso", 0.62
    return config
