"""Typed configuration: every key a user can set, its unit and its limits. Imports nothing of ours but errors.

A file in `configs/` returns a `Config`; `--config.<section>.<key>=<value>` overrides single keys.
"""

import dataclasses
import difflib
import json
import pathlib
from typing import Any

from hep2jax.errors import UsageError

DATA_SETS = ("hep2_synthetic", "icpr2012", "icpr2014_task1", "icpr2014_task2", "snphep2", "aida")
PROTOCOLS = ("contest", "holdout", "kfold", "loso", "blocked", "random_cells")
SEGMENTERS = ("fcn", "fcrn", "dsfcn", "unet")
"""Networks that label the pixels of whole fields."""
CLASSIFIERS = ("gao", "dacn", "vggcell", "resnet", "dsrn", "dcrnet", "dri", "dcae")
"""Networks that name the pattern of a single cell."""
BAG_READERS = ("mil",)
"""Networks that name the pattern of a specimen from tiles of its fields, or the patterns of each image of a set whose
images may have several."""
JOINT_READERS = ("joint",)
"""Networks that segment a patch, name its pattern and grade its intensity at once."""
MODELS = SEGMENTERS + CLASSIFIERS + BAG_READERS + JOINT_READERS
CHANNELS = ("grey", "green")
WARPS = ("host", "device")
FIELD_NORMALISATIONS = ("field", "none")
CELL_NORMALISATIONS = ("none", "contrast_stretch", "equalise", "clahe")
BALANCES = ("pattern", "specimen", "class", "none")
CELL_FITS = ("stretch", "keep", "native")
DEPTHS = (0, 18, 34, 50)
COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


@dataclasses.dataclass(kw_only=True)
class DataConfig:
    """Which images, where they are, who trains on which, and how crops are drawn."""

    name: str = "hep2_synthetic"
    """TFDS name of the data set, one of `DATA_SETS`."""
    builder_config: str = ""
    """Named configuration of the builder (`cells`, `specimens`, ...); empty: the one that fits the network."""
    data_dir: str | None = None
    """Where prepared data sets are kept; None: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    manual_dir: str | None = None
    """The owner's directory tree, for sets that need a licence."""
    protocol: str = "contest"
    """contest: the data set's own split; the others: see hep2jax.data.protocols."""
    fold: int = 0
    """Which fold (0 to num_folds-1) or which specimen of `loso` is held out for testing."""
    num_folds: int = 7
    """Number of folds of `kfold`, `blocked` and `random_cells`."""
    split_lists: str = ""
    """Folder with training.csv, validation.csv and test.csv (those that there are), for `holdout`."""
    block_gap: int = 0
    """Cells left out of training at each border between the blocks of `blocked`."""
    protocol_seed: int = 0
    """Seed of the shuffle of `random_cells`; apart from `seed`, so that runs with other seeds share their folds."""
    validation_fraction: float = 0.0
    """Share of the training specimens (of the cells, where a protocol divides cells) set aside for validation, where
    the protocol has no validation side of its own."""
    channel: str = "grey"
    """grey: mean of the channels; green: the channel that carries the FITC signal of colour images."""
    scale: float = 1.0
    """Fields: working resolution; images are shrunk by this factor (area average) before anything else. Cells: input
    pixels per native pixel where `cell_fit` is native."""
    normalise: str = "field"
    """Fields: field (the median of each image, its background, to 0, its `top_percentile` to 1) or none (grey / 255).
    Cells, by their names in the literature: none (grey / 255), contrast_stretch (minimum to 0, `top_percentile` to 1),
    equalise (histogram equalisation), clahe (equalisation of 8x8 regions with limited contrast)."""
    mean_centring: bool = False
    """Cells: subtract each cell image's mean after the normalisation ("data centralisation")."""
    top_percentile: float = 95.0
    """Nearer to 100, bright dots set the scale; lower, down to 100 % less the foreground's share, the cells' level."""
    masked: bool = False
    """Cells: everything outside the cell's mask is made as dark as the background; False: the whole crop."""
    cell_fit: str = "stretch"
    """How a cell fills the square input of `crop_size` pixels. stretch: each side by its own factor (Gao 2017);
    keep: by one factor, the longer side fills the input; native: by `scale`, so that sizes stay comparable."""
    cell_margin: float = -1.0
    """Context around the mask's bounding box, as a share of its longer side; -1: the owner's crop as it is. Sets
    differ in how tightly they were cropped; with a margin >= 0 they become alike."""
    cut_cell_margin: int = 0
    """For sets that do not annotate the cells which the frame cuts (icpr2012): background nearer than this to the
    frame, in native pixels, is void in training. Figures are measured on every pixel all the same."""
    crop_size: int = 128
    """Side of the square training crop of a field, in pixels at working resolution; side of a cell network's input."""
    warp: str = "host"
    """Where the crop-mirror-rotate matrix is executed. host: by OpenCV, uint8 crops travel; device: inside the step,
    from training images that stay in the devices' memory, only indices and matrices travel."""
    foreground_crops: float = 0.75
    """Share of the crops centred on a cell pixel; the rest lie anywhere in the image."""
    bag_tiles: int = 8
    """`mil`: crops of a specimen (of an image, where each has its own patterns) that are trained on as one bag;
    `train.global_batch_size` counts bags."""
    balance: str = "pattern"
    """What is drawn equally often. pattern: every pattern, then its specimens, then their fields or cells;
    specimen: every specimen; class: every pattern, then its fields or cells, whatever their specimens (class-balanced
    sampling); none: every field or cell, each once an epoch. An image of several patterns is drawn for each of them;
    images without any count as a further pattern."""


@dataclasses.dataclass(kw_only=True)
class AugmentConfig:
    """Crop-mirror-rotate (CMR, survey section 3.2.2) and photometric jitter of training crops."""

    mirror: bool = True
    rotate: bool = True
    """False: no rotation."""
    rotation_step: float = 0.0
    """Degrees: angles are drawn from the multiples of it, as in Gao et al. (36, 18, 9); 0: any angle."""
    shift: float = 0.0
    """Cells: half-width of the uniform shift in each direction, as a share of the input's side."""
    scale_min: float = 0.9
    scale_max: float = 1.1
    """Range of the random zoom (log-uniform)."""
    gain: float = 0.5
    """Half-width of the log-uniform gain on the normalised intensity: factor in [e^-gain, e^gain]."""
    gamma: float = 0.5
    """Half-width of the log-uniform exponent on the normalised intensity."""
    offset: float = 0.05
    """Half-width of the uniform offset on the normalised intensity."""


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
    """Which network and how wide."""

    name: str = "fcn"
    width: float = 1.0
    """Multiplier on every channel count of the published network (rounded to a multiple of 8, at least 8)."""
    depth: int = 0
    """Layers of `resnet` and `dsrn`: 18, 34 or 50; 0: as published."""
    flatten_side: int = 0
    """`joint`: side of the patches whose whole bottleneck its two fully connected heads see (published: 384); 0: they
    see its mean over the patch, which may then have any size."""
    dropout: float = 0.0
    """Drop rate before the heads, where the network has one."""
    init_from: str = ""
    """A work directory (empty: none): start from its parameters wherever path and shape agree (pre-training). Heads
    start afresh where it was trained on other patterns."""


@dataclasses.dataclass(kw_only=True)
class LossConfig:
    """Cross-entropy of pixels or cells, side heads, Dice and reconstruction."""

    class_balance: float = 0.0
    """Exponent b of the class weights (1/frequency)^b, mean weight over pixels or cells (over the occurrences, where
    an image may have several patterns) 1; 0: no weights. Frequencies are those of the training batches: of what
    `data.balance` draws equally often, nothing is left to balance."""
    side_weight: float = 0.4
    """Weight of each side head's loss (hierarchical supervision)."""
    dice_weight: float = 0.0
    """Weight of the soft foreground Dice loss."""
    reconstruction_weight: float = 1.0
    """Weight of the mean squared error of what `dacn` and `dcae` reconstruct."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly: over the patterns or, where an image may have several, over there
    and not there of each."""


@dataclasses.dataclass(kw_only=True)
class OptimizerConfig:
    """Optimizer and schedule."""

    name: str = "adamw"
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup_steps: int = 20
    weight_decay: float = 1e-4
    momentum: float = 0.9
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down; 0: off."""
    ema_decay: float = 0.99
    """Decay of the averaged parameters that are evaluated; 0: no average."""


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    """Length, batch, precision and rhythm of a run."""

    num_steps: int = 400
    global_batch_size: int = 8
    """Crops in a step over all devices and processes."""
    compute_dtype: str = "auto"
    """bfloat16 on TPU and GPU, float32 on CPU (auto), or named."""
    log_every: int = 20
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0: only at the end."""
    checkpoint_every: int = 100
    keep_latest: int = 2
    keep_best: int = 1
    steps_per_call: int = 1
    """Steps in one call of the compiled program. More than 1 saves the host's part of each (small networks on fast
    devices); log_every, eval_every, checkpoint_every and num_steps must be multiples of it. Not for CPUs: XLA runs
    convolutions inside loops there at a fifth of their speed."""
    prefetch: int = 3
    """Batches made ahead of the step by the pipeline's thread."""


@dataclasses.dataclass(kw_only=True)
class EvaluationConfig:
    """Tiling and figures of an evaluation. None of these changes what is measured, but `tile_*`."""

    batch_size: int = 8
    """Tiles or cells in a forward pass over all devices."""
    tile_size: int = 192
    """Side of a tile at working resolution."""
    tile_overlap: int = 48
    """Overlap of neighbouring tiles, blended with a raised-cosine window."""
    min_object_pixels: int = 30
    """Predicted objects smaller than this many native pixels are not counted as cells."""
    foreground_threshold: float = 0.5
    """A pixel is cell where its probability of being anything but background exceeds this."""
    pattern_threshold: float = 0.5
    """Where an image may have several patterns, it is said to have those of at least this probability."""
    dihedral: bool = False
    """Average the predictions of the eight rotations and mirror images of every tile or cell; eight times the work."""
    nuclear_diameter: float = 0.0
    """Typical diameter of a nucleus in native pixels; 0: unknown. Known, touching cells are split for SEG_instances,
    and the two options below can be had."""
    baselines: bool = False
    """Measure Otsu + watershed, in two variants, on the same pixels too."""
    drop_cut_cells: bool = False
    """Leave predicted cells that the frame cuts out, networks' and baselines' alike: for icpr2012, whose annotators
    left out every cell that the frame cuts."""
    bootstrap_samples: int = 2000
    gallery_specimens: int = 24
    """Specimens shown in the report; of cells, as many of each pattern, the errors first."""


@dataclasses.dataclass(kw_only=True)
class Config:
    """One experiment."""

    seed: int = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionary of every key, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`; UsageError names an unknown key and its nearest valid one."""
    config = Config()
    for section, value in values.items():
        _check_known(config, section)
        current = getattr(config, section)
        if not dataclasses.is_dataclass(current):
            setattr(config, section, value)
            continue
        for key, leaf in value.items():
            _check_known(current, key, prefix=f"{section}.")
            setattr(current, key, leaf)
    return config


def save(config: Config, path: pathlib.Path) -> None:
    """Write the configuration as JSON."""
    path.write_text(json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n")


def load(path: pathlib.Path) -> Config:
    """Read what `save` wrote."""
    return from_dict(json.loads(path.read_text()))


def valid_keys() -> list[str]:
    """Every dotted key, for messages and completion."""
    keys = []
    for section, value in to_dict(Config()).items():
        keys += [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
    return keys


def nearest_key(key: str) -> str:
    """The valid dotted key that looks most like `key`."""
    keys = valid_keys()
    by_leaf = {name.rsplit(".", 1)[-1]: name for name in keys}
    whole = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    leaf = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
    return whole[0] if whole else by_leaf[leaf[0]] if leaf else keys[0]


def _check_known(holder: Any, key: str, prefix: str = "") -> None:
    if key not in {field.name for field in dataclasses.fields(holder)}:
        raise UsageError(f"unknown configuration key '{prefix}{key}': did you mean '{nearest_key(prefix + key)}'?")


def validate(config: Config) -> Config:
    """Return the configuration if its values are usable; raise UsageError naming the first bad key."""
    data, model, train = config.data, config.model, config.train
    _one_of("data.name", data.name, DATA_SETS)
    _one_of("data.protocol", data.protocol, PROTOCOLS)
    _one_of("data.channel", data.channel, CHANNELS)
    _one_of("data.warp", data.warp, WARPS)
    _one_of("data.balance", data.balance, BALANCES)
    _one_of("data.cell_fit", data.cell_fit, CELL_FITS)
    _one_of("model.name", model.name, MODELS)
    reads_cells = model.name in CLASSIFIERS
    _one_of("data.normalise", data.normalise, CELL_NORMALISATIONS if reads_cells else FIELD_NORMALISATIONS)
    _among("model.depth", model.depth, DEPTHS)
    _one_of("train.compute_dtype", train.compute_dtype, COMPUTE_DTYPES)
    _one_of("optimizer.name", config.optimizer.name, OPTIMIZERS)
    _one_of("optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    for key in ("num_steps", "global_batch_size", "log_every", "checkpoint_every", "keep_latest", "prefetch"):
        _at_least(f"train.{key}", getattr(train, key), 1)
    _at_least("train.steps_per_call", train.steps_per_call, 1)
    for key in ("num_steps", "log_every", "eval_every", "checkpoint_every"):
        if getattr(train, key) % train.steps_per_call:
            raise UsageError(
                f"train.{key}={getattr(train, key)}: must be a multiple of train.steps_per_call={train.steps_per_call}"
            )
    for key in ("batch_size", "bootstrap_samples"):
        _at_least(f"evaluation.{key}", getattr(config.evaluation, key), 1)
    for key, value in (("eval_every", train.eval_every), ("keep_best", train.keep_best)):
        _at_least(f"train.{key}", value, 0)
    _at_least("data.fold", data.fold, 0)
    _at_least("data.num_folds", data.num_folds, 2)
    _between("data.scale", data.scale, 1e-3, 1.0)
    _between("data.top_percentile", data.top_percentile, 60.0, 100.0)
    _between("data.validation_fraction", data.validation_fraction, 0.0, 0.9)
    _between("data.foreground_crops", data.foreground_crops, 0.0, 1.0)
    _at_least("data.bag_tiles", data.bag_tiles, 1)
    _at_least("model.flatten_side", model.flatten_side, 0)
    _between("model.width", model.width, 1e-3, 16.0)
    _between("model.dropout", model.dropout, 0.0, 0.95)
    _between("optimizer.ema_decay", config.optimizer.ema_decay, 0.0, 0.99999)
    _between("augment.scale_min", config.augment.scale_min, 0.1, config.augment.scale_max)
    tiles = config.evaluation
    _between("evaluation.tile_overlap", tiles.tile_overlap, 0, tiles.tile_size // 2)
    _between("evaluation.foreground_threshold", tiles.foreground_threshold, 0.01, 0.99)
    _between("evaluation.pattern_threshold", tiles.pattern_threshold, 0.01, 0.99)
    if (tiles.baselines or tiles.drop_cut_cells) and not tiles.nuclear_diameter > 0:
        raise UsageError("evaluation.nuclear_diameter=0: baselines and drop_cut_cells need it, in native pixels")
    for key in ("cut_cell_margin", "block_gap", "protocol_seed"):
        _at_least(f"data.{key}", getattr(data, key), 0)
    _between("data.cell_margin", data.cell_margin, -1.0, 2.0)
    _between("augment.rotation_step", config.augment.rotation_step, 0.0, 360.0)
    _between("augment.shift", config.augment.shift, 0.0, 0.5)
    _check_sizes(config, reads_cells)
    return config


def _check_sizes(config: Config, reads_cells: bool) -> None:
    """A cell network checks its input itself: each takes other sides."""
    sizes = (("data.crop_size", config.data.crop_size), ("evaluation.tile_size", config.evaluation.tile_size))
    for key, size in () if reads_cells else sizes:
        if size < 32 or size % 32:
            raise UsageError(f"{key}={size}: must be a positive multiple of 32, the networks' total stride")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.0)
        raise UsageError(f"{key}='{value}': must be one of {', '.join(allowed)}; nearest is '{near[0]}'")


def _among(key: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{key}={value}: must be one of {', '.join(map(str, allowed))}")


def _at_least(key: str, value: float, low: float) -> None:
    if value < low:
        raise UsageError(f"{key}={value}: must be at least {low}")


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{key}={value}: must lie between {low} and {high}")
