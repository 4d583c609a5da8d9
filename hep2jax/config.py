"""Typed configuration: every key a user can set, its unit and its limits. Imports nothing of ours but errors.

`get_config(variant)` of a file in `configs/` returns a `Config`; `--config.<section>.<key>=<value>` overrides keys.
"""

import dataclasses
import difflib
import json
import operator
import pathlib
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from hep2jax.errors import UsageError

PROTOCOLS = ("contest", "holdout", "kfold", "loso", "blocked", "random_cells")
CHANNELS = ("grey", "green")
WARPS = ("auto", "host", "device")
FIELD_NORMALISATIONS = ("field", "none")
CELL_NORMALISATIONS = ("none", "contrast_stretch", "equalise", "clahe")
BALANCES = ("pattern", "specimen", "class", "none")
CELL_FITS = ("stretch", "keep", "native")
DEPTHS = (0, 18, 34, 50)
COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")

_LARGEST = {int: 2**31 - 1, float: 3.4028234e38}
"""What an int32 and a float32 hold, the types that steps compute with."""


def _key(
    default: Any,
    *,
    choices: Iterable[Any] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    may_change: bool = False,
    of_evaluation: bool = False,
) -> Any:
    """A key with what may be said of its values; `validate` reads it from the field's metadata.

    Args:
        default: of the key.
        choices: the values that it may have; with limits, values that it may have beside those within the limits.
        at_least: the least number.
        above: a number that is too low itself.
        at_most: the greatest number.
        may_change: whether a run may be continued with another value, because neither its parameters nor its
            checkpoints depend on it.
        of_evaluation: whether an evaluation takes the given value instead of the trained one, because it says what is
            measured or how.
    """
    limits = {"choices": tuple(choices), "at_least": at_least, "above": above, "at_most": at_most}
    uses = {"may_change": may_change, "of_evaluation": of_evaluation}
    return dataclasses.field(default=default, metadata=limits | uses)


@dataclasses.dataclass(kw_only=True)
class DataConfig:
    """Which images, where they are, who trains on which, and how crops are drawn."""

    name: str = _key("hep2_synthetic", of_evaluation=True)
    """TFDS name of the data set."""
    builder_config: str = _key("", of_evaluation=True)
    """Named configuration of the builder (`cells`, `specimens`, ...); empty: the one that fits the network."""
    data_dir: str | None = _key(None, may_change=True, of_evaluation=True)
    """Where prepared data sets are kept; None: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    manual_dir: str | None = _key(None, may_change=True, of_evaluation=True)
    """The owner's directory tree, for sets that need a licence."""
    protocol: str = _key("contest", choices=PROTOCOLS, of_evaluation=True)
    """contest: the data set's own split; the others: see hep2jax.data.splits.protocols."""
    fold: int = _key(0, at_least=0, of_evaluation=True)
    """Which fold (0 to num_folds-1) or which specimen of `loso` is held out for testing."""
    num_folds: int = _key(7, at_least=2, of_evaluation=True)
    """Number of folds of `kfold`, `blocked` and `random_cells`."""
    split_lists: str = _key("", of_evaluation=True)
    """Folder with training.csv, validation.csv and test.csv (those that there are), for `holdout`."""
    block_gap: int = _key(0, at_least=0, of_evaluation=True)
    """Cells left out of training at each border between the blocks of `blocked`."""
    protocol_seed: int = _key(0, at_least=0, of_evaluation=True)
    """Seed of the shuffle of `random_cells`; apart from `seed`, so that runs with other seeds share their folds."""
    validation_fraction: float = _key(0.0, at_least=0.0, at_most=0.9, of_evaluation=True)
    """Share of the training specimens (of the cells, where a protocol divides cells) set aside for validation, where
    the protocol has no validation side of its own."""
    channel: str = _key("grey", choices=CHANNELS)
    """grey: mean of the channels; green: the channel that carries the FITC signal of colour images."""
    scale: float = _key(1.0, at_least=1e-3, at_most=1.0)
    """Fields: working resolution; images are shrunk by this factor (area average) before anything else. Cells: input
    pixels per native pixel where `cell_fit` is native."""
    normalise: str = _key("field", choices=dict.fromkeys(FIELD_NORMALISATIONS + CELL_NORMALISATIONS))
    """Fields: field (the median of each image, its background, to 0, its `top_percentile` to 1) or none (grey / 255).
    Cells, by their names in the literature: none (grey / 255), contrast_stretch (minimum to 0, `top_percentile` to 1),
    equalise (histogram equalisation), clahe (equalisation of 8x8 regions with limited contrast)."""
    mean_centring: bool = False
    """Cells: subtract each cell image's mean after the normalisation ("data centralisation")."""
    top_percentile: float = _key(95.0, at_least=60.0, at_most=100.0)
    """Nearer to 100, bright dots set the scale; lower, down to 100 % less the foreground's share, the cells' level."""
    masked: bool = False
    """Cells: everything outside the cell's mask is made as dark as the background; False: the whole crop."""
    cell_fit: str = _key("stretch", choices=CELL_FITS)
    """How a cell fills the square input of `crop_size` pixels. stretch: each side by its own factor (Gao 2017);
    keep: by one factor, the longer side fills the input; native: by `scale`, so that sizes stay comparable."""
    cell_margin: float = _key(-1.0, choices=(-1.0,), at_least=0.0, at_most=2.0)
    """Context around the mask's bounding box, as a share of its longer side; -1: the owner's crop as it is. Sets
    differ in how tightly they were cropped; with a margin >= 0 they become alike."""
    cut_cell_margin: int = _key(0, at_least=0)
    """For sets that do not annotate the cells which the frame cuts (icpr2012): background nearer than this to the
    frame, in native pixels, is void in training. Figures are measured on every pixel all the same."""
    crop_size: int = _key(128, choices=(0,), at_least=8, at_most=8192)
    """Side of the square training crop of a field, in pixels at working resolution; side of a cell network's input,
    where 0 is the network's own (see `hep2jax.tasks.resolve`)."""
    warp: str = _key("auto", choices=WARPS)
    """Where the crop-mirror-rotate matrix is executed. host: by OpenCV, uint8 crops travel; device: inside the step,
    from training images that stay in the devices' memory, only indices and matrices travel; auto: device on GPUs, which
    outrun the host, else host."""
    foreground_crops: float = _key(0.75, at_least=0.0, at_most=1.0)
    """Share of the crops centred on a cell pixel; the rest lie anywhere in the image."""
    bag_tiles: int = _key(8, at_least=1)
    """`mil`: crops of a specimen (of an image, where each has its own patterns) that are trained on as one bag;
    `train.global_batch_size` counts bags."""
    balance: str = _key("pattern", choices=BALANCES)
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
    rotation_step: float = _key(0.0, at_least=0.0, at_most=360.0)
    """Degrees: angles are drawn from the multiples of it, as in Gao et al. (36, 18, 9); 0: any angle."""
    shift: float = _key(0.0, at_least=0.0, at_most=0.5)
    """Cells: half-width of the uniform shift in each direction, as a share of the input's side."""
    scale_min: float = _key(0.9, at_least=0.1, at_most=10.0)
    scale_max: float = _key(1.1, at_least=0.1, at_most=10.0)
    """Range of the random zoom (log-uniform)."""
    gain: float = _key(0.5, at_least=0.0, at_most=5.0)
    """Half-width of the log-uniform gain on the normalised intensity: factor in [e^-gain, e^gain]."""
    gamma: float = _key(0.5, at_least=0.0, at_most=5.0)
    """Half-width of the log-uniform exponent on the normalised intensity."""
    offset: float = _key(0.05, at_least=0.0, at_most=5.0)
    """Half-width of the uniform offset on the normalised intensity."""
    blur: float = _key(0.0, at_least=0.0, at_most=8.0)
    """Largest standard deviation of a Gaussian blur, in pixels of the crop; each crop's is uniform; 0: off."""
    noise: float = _key(0.0, at_least=0.0, at_most=255.0)
    """Largest standard deviation of Gaussian sensor noise, in the picture's 255 grey levels, before they are
    normalised; each crop's is uniform; 0: off. One well below 1 is lost where crops are made of whole grey levels
    (`data.warp=host`)."""
    mixup: float = _key(0.0, at_least=0.0, at_most=16.0)
    """Networks of cells: alpha of mixup, which trains on blends of two cells, shared by Beta(alpha, alpha); 0: off."""


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
    """Which network and how wide."""

    name: str = "fcn"
    width: float = _key(1.0, at_least=1e-3, at_most=16.0)
    """Multiplier on every channel count of the published network (rounded to a multiple of 8, at least 8)."""
    depth: int = _key(0, choices=DEPTHS)
    """Layers of `resnet` and `dsrn`: 18, 34 or 50; 0: as published."""
    flatten_side: int = _key(0, at_least=0)
    """`joint`: side of the patches whose whole bottleneck its two fully connected heads see (published: 384); 0: they
    see its mean over the patch, which may then have any size."""
    dropout: float = _key(0.0, at_least=0.0, at_most=0.95)
    """Drop rate before the heads, where the network has one."""
    mixstyle: float = _key(0.0, at_least=0.0, at_most=1.0)
    """Probability with which a training step blends the styles of feature maps in an early layer (MixStyle, published:
    0.5); 0: off."""
    init_from: str = ""
    """A work directory (empty: none): start from its parameters wherever path and shape agree (pre-training). Heads
    start afresh where it was trained on other patterns."""


@dataclasses.dataclass(kw_only=True)
class LossConfig:
    """Cross-entropy of pixels or cells, side heads, Dice and reconstruction."""

    class_balance: float = _key(0.0, at_least=0.0, at_most=4.0)
    """Exponent b of the class weights (1/frequency)^b, mean weight over pixels or cells (over the occurrences, where
    an image may have several patterns) 1; 0: no weights. Frequencies are those of the training batches: of what
    `data.balance` draws equally often, nothing is left to balance."""
    side_weight: float = _key(0.4, at_least=0.0)
    """Weight of each side head's loss (hierarchical supervision)."""
    dice_weight: float = _key(0.0, at_least=0.0)
    """Weight of the soft foreground Dice loss."""
    reconstruction_weight: float = _key(1.0, at_least=0.0)
    """Weight of the mean squared error of what `dacn` and `dcae` reconstruct."""
    label_smoothing: float = _key(0.0, at_least=0.0, at_most=0.99)
    """Share of each target that is spread evenly: over the patterns or, where an image may have several, over there
    and not there of each."""


@dataclasses.dataclass(kw_only=True)
class OptimizerConfig:
    """Optimizer and schedule."""

    name: str = _key("adamw", choices=OPTIMIZERS)
    learning_rate: float = _key(2e-3, above=0.0)
    schedule: str = _key("cosine", choices=SCHEDULES)
    warmup_steps: int | None = _key(None, at_least=0)
    """Steps in which the learning rate rises to its peak; None: 20, or the whole run where it is shorter."""
    weight_decay: float = _key(1e-4, at_least=0.0)
    momentum: float = _key(0.9, at_least=0.0, at_most=0.9999)
    clip_norm: float = _key(1.0, at_least=0.0)
    """Global gradient norm above which gradients are scaled down; 0: off."""
    ema_decay: float = _key(0.99, at_least=0.0, at_most=0.99999)
    """Decay of the averaged parameters that are evaluated; 0: no average."""


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    """Length, batch, precision and rhythm of a run."""

    num_steps: int = _key(400, at_least=1)
    global_batch_size: int = _key(8, at_least=1)
    """Crops in a step over all devices and processes."""
    compute_dtype: str = _key("auto", choices=COMPUTE_DTYPES)
    """bfloat16 on TPU and GPU, float32 on CPU (auto), or named."""
    log_every: int = _key(20, at_least=1, may_change=True)
    eval_every: int = _key(0, at_least=0, may_change=True)
    """Steps between evaluations on the validation split; 0: only at the end."""
    checkpoint_every: int = _key(100, at_least=1, may_change=True)
    keep_latest: int = _key(2, at_least=1, may_change=True)
    keep_best: int = _key(1, at_least=0, may_change=True)
    steps_per_call: int = _key(1, at_least=1)
    """Steps in one call of the compiled program. More than 1 saves the host's part of each (small networks on fast
    devices); log_every, eval_every, checkpoint_every and num_steps must be multiples of it. Not for CPUs: XLA runs
    convolutions inside loops there at a fifth of their speed."""
    prefetch: int = _key(3, at_least=1, may_change=True)
    """Batches made ahead of the step by the pipeline's thread."""


@dataclasses.dataclass(kw_only=True)
class EvaluationConfig:
    """Tiling and figures of an evaluation. None of these changes what is measured, but `tile_*`."""

    batch_size: int = _key(8, at_least=1)
    """Tiles or cells in a forward pass over all devices."""
    tile_size: int = _key(192, at_least=8, at_most=8192)
    """Side of a tile at working resolution."""
    tile_overlap: int = _key(48, at_least=0)
    """Overlap of neighbouring tiles, blended with a raised-cosine window."""
    min_object_pixels: int = _key(30, at_least=0)
    """Predicted objects smaller than this many native pixels are not counted as cells."""
    foreground_threshold: float = _key(0.5, at_least=0.01, at_most=0.99)
    """A pixel is cell where its probability of being anything but background exceeds this."""
    pattern_threshold: float = _key(0.5, at_least=0.01, at_most=0.99)
    """Where an image may have several patterns, it is said to have those of at least this probability."""
    dihedral: bool = False
    """Average the predictions of the eight rotations and mirror images of every tile or cell; eight times the work."""
    nuclear_diameter: float = _key(0.0, at_least=0.0)
    """Typical diameter of a nucleus in native pixels; 0: unknown. Known, touching cells are split for SEG_instances,
    and the two options below can be had."""
    baselines: bool = False
    """Measure Otsu + watershed, in two variants, on the same pixels too."""
    drop_cut_cells: bool = False
    """Leave predicted cells that the frame cuts out, networks' and baselines' alike: for icpr2012, whose annotators
    left out every cell that the frame cuts."""
    gallery_specimens: int = _key(32, at_least=0)
    """Specimens of a side shown in the report, evenly chosen where there are more; of cells, as many of each pattern,
    the errors first."""


@dataclasses.dataclass(kw_only=True)
class Config:
    """One experiment."""

    seed: int = _key(0, at_least=0)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = dataclasses.field(
        default_factory=EvaluationConfig, metadata={"may_change": True, "of_evaluation": True}
    )


def check_variant(variant: str, variants: Sequence[str]) -> None:
    """UsageError where a configuration file has no such variant; every one has the plain one, which is ""."""
    if variant and variant not in variants:
        known = f"its variants are {', '.join(variants)}" if variants else "it has no variants"
        raise UsageError(f"unknown variant '{variant}' of the configuration: {known}")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A dotted key of a configuration with its value."""

    name: str
    value: Any
    type: Any
    metadata: dict[str, Any]
    """What `_key` was told, with what its section says of all its keys."""


def keys(config: Config) -> Iterator[Key]:
    """Every key, section by section."""
    for section in dataclasses.fields(config):
        holder = getattr(config, section.name)
        if not dataclasses.is_dataclass(holder):
            yield Key(name=section.name, value=holder, type=section.type, metadata={**section.metadata})
            continue
        for field in dataclasses.fields(holder):
            name, value = f"{section.name}.{field.name}", getattr(holder, field.name)
            yield Key(name=name, value=value, type=field.type, metadata={**field.metadata, **section.metadata})


def valid_keys() -> list[str]:
    """Every dotted key, for messages and completion."""
    return [key.name for key in keys(Config())]


def changed_keys(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of the keys that differ and may not, because a run's parameters depend on them."""
    pairs = zip(keys(old), keys(new), strict=True)
    return [
        (key.name, before.value, key.value)
        for before, key in pairs
        if before.value != key.value and not key.metadata.get("may_change")
    ]


def nearest_key(key: str) -> str:
    """The valid dotted key that looks most like `key`."""
    names = valid_keys()
    by_leaf = {name.rsplit(".", 1)[-1]: name for name in names}
    whole = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    leaf = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
    return whole[0] if whole else by_leaf[leaf[0]] if leaf else names[0]


def _check_known(holder: Any, key: str, prefix: str = "") -> None:
    if key not in {field.name for field in dataclasses.fields(holder)}:
        raise UsageError(f"unknown configuration key '{prefix}{key}': did you mean '{nearest_key(prefix + key)}'?")


def validate(config: Config) -> Config:
    """Return the configuration if its values are usable; raise UsageError naming the first bad key."""
    for key in keys(config):
        _check_type(key)
        _check_limits(key.name, key.value, **key.metadata)
    _check_relations(config)
    return config


def _check_type(key: Key) -> None:
    """UsageError for a value of another type; a whole number will do for a float."""
    allowed = typing.get_args(key.type) if isinstance(key.type, types.UnionType) else (key.type,)
    if type(key.value) not in (*allowed, *([int] if float in allowed else [])):
        names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in allowed)
        raise UsageError(f"{key.name}={key.value!r}: must be of type {names}")


def _check_limits(
    key: str,
    value: Any,
    *,
    choices: Sequence[Any] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    **_: Any,
) -> None:
    """UsageError for a value outside what `_key` was told."""
    if value is None or isinstance(value, bool) or value in choices:
        return
    if isinstance(value, str):
        if choices:
            check_choice(key, value, choices)
        return
    if not abs(value) <= _LARGEST[type(value)]:  # nan is not
        raise UsageError(f"{key}={value}: must be a finite number of at most {_LARGEST[type(value)]:g}")
    bounds = ((at_least, "at least", operator.ge), (above, "above", operator.gt), (at_most, "at most", operator.le))
    limits = [(limit, word, holds) for limit, word, holds in bounds if limit is not None]
    if limits and all(holds(value, limit) for limit, _, holds in limits):
        return
    words = [f"be one of {', '.join(map(str, choices))}"] if choices else []
    if at_least is not None and at_most is not None:
        words.append(f"lie between {at_least} and {at_most}")
    elif limits:
        words.append("be " + " and ".join(f"{word} {limit}" for limit, word, _ in limits))
    raise UsageError(f"{key}={value}: must {' or '.join(words)}")


def check_choice(key: str, value: str, choices: Collection[str]) -> None:
    """UsageError, which names the key and the nearest choice, for a value that is none of them."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1, cutoff=0.0)
        raise UsageError(f"{key}='{value}': must be one of {', '.join(choices)}; nearest is '{near[0]}'")


def _check_relations(config: Config) -> None:
    """What one key says about another."""
    train, optimizer, tiles = config.train, config.optimizer, config.evaluation
    for key in ("num_steps", "log_every", "eval_every", "checkpoint_every"):
        if getattr(train, key) % train.steps_per_call:
            raise UsageError(
                f"train.{key}={getattr(train, key)}: must be a multiple of train.steps_per_call={train.steps_per_call}"
            )
    if optimizer.warmup_steps is not None and optimizer.warmup_steps > train.num_steps:
        raise UsageError(
            f"optimizer.warmup_steps={optimizer.warmup_steps}: must be at most train.num_steps={train.num_steps}"
        )
    _check_limits("augment.scale_min", config.augment.scale_min, at_least=0.1, at_most=config.augment.scale_max)
    _check_limits("evaluation.tile_overlap", tiles.tile_overlap, at_least=0, at_most=tiles.tile_size // 2)
    if (tiles.baselines or tiles.drop_cut_cells) and not tiles.nuclear_diameter > 0:
        raise UsageError("evaluation.nuclear_diameter=0: baselines and drop_cut_cells need it, in native pixels")
