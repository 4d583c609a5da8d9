"""The network that we would send to the ICPR 2012 contest for its cells: trained on the whole training half.

Gao et al.'s CNN, started from `configs/icpr2014_pretraining.py`, cells framed by their masks, small steps towards
smoothed labels: what was best when specimens of the training half were held out (RESULTS.md). Name the owner's files
with --config.data.manual_dir=DIR; the contest's test half is measured if it is there. `make icpr2012-cells` runs both.
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
