"""The network to submit to the ICPR 2012 contest for its cells, trained on the complete training half.

The CNN of Gao et al. starts from `configs/icpr2014_pretraining.py`; cells are cropped to their masks, the learning rate
is small and labels are smoothed. These settings were the best with held-out specimens of the training half
(RESULTS.md). Give the directory of the original files with --config.data.manual_dir=DIR; the contest's test half is
evaluated if it is present. `make icpr2012-cells` runs both trainings.
"""

from hep2jax.config import Config, check_variant

from . import cnn

VARIANTS = ()


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = cnn.get_config("icpr2012")
    config.data.protocol, config.data.cell_margin = "contest", 0.1
    config.model.init_from = "runs/icpr2014_pretraining"
    config.optimizer.learning_rate, config.loss.label_smoothing = 5e-4, 0.1
    config.train.num_steps, config.train.checkpoint_every = 400, 400
    return config
