"""Networks for fields of specimens never seen, on ICPR 2012 specimens: see docs/fields.md.

A U-Net at half resolution on the logarithm of the contrast. Cross-validation inside the training half, two specimens
held out. Variants:

* `dsfcn`: `dsfcn` at the resolution of the other networks, which finds more of the foreground and parts fewer cells.
* `contest`: the U-Net on the complete training half.
"""

from hep2jax.config import Config, check_variant

from . import dsfcn, unet

VARIANTS = ("dsfcn", "contest")


def get_config(variant: str = "") -> Config:
    check_variant(variant, VARIANTS)
    config = (dsfcn if variant == "dsfcn" else unet).get_config("icpr2012")
    config.data.normalise, config.data.background_window = "log", 2 * config.evaluation.nuclear_diameter
    # Twelve specimens teach what a cell is, and hardly what a pattern is.
    config.loss.pattern_weight, config.loss.dice_weight = 0.25, 0.5
    config.evaluation.unsure_band = 0.15
    if variant == "dsfcn":
        return config
    config.data.protocol = variant or "kfold"
    config.data.scale, config.data.balance, config.model.pixel_block, config.model.width = 0.5, "specimen", 2, 0.25
    config.loss.gap_weight = 3.0
    config.augment.blur, config.augment.noise, config.augment.offset = 1.0, 5.0, 0.1
    config.optimizer.learning_rate, config.optimizer.weight_decay, config.optimizer.ema_decay = 4e-3, 1e-3, 0.98
    config.train.num_steps, config.train.global_batch_size = 300, 12
    config.evaluation.tile_size, config.evaluation.tile_overlap, config.evaluation.batch_size = 384, 64, 4
    config.evaluation.foreground_threshold = 0.4
    return config
