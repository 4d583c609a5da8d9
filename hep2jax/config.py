"""Typed configuration: every key that a user can set, with its unit and its limits. It imports only `hep2jax.errors`.

`get_config(variant)` of a file in `configs/` returns a `Config`; `--config.<section>.<key>=<value>` overrides keys.
"""

import copy
import dataclasses
import difflib
import json
import operator
import pathlib
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from hep2jax import files
from hep2jax.errors import UsageError

PROTOCOLS = ("contest", "holdout", "kfold", "loso", "blocked", "random_cells")
CHANNELS = ("grey", "green")
WARPS = ("auto", "host", "device")
FIELD_NORMALISATIONS = ("field", "log", "none")
CELL_NORMALISATIONS = ("none", "contrast_stretch", "equalise", "clahe")
BALANCES = ("pattern", "specimen", "class", "none")
CELL_FITS = ("stretch", "keep", "native", "frame")
DEPTHS = (0, 18, 34, 50)
COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")

_LARGEST = {int: 2**31 - 1, float: 3.4028234e38}
"""The largest values of int32 and float32, the types that training steps compute with."""


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
    """A configuration key with the limits of its value, which `validate` reads from the field's metadata.

    Args:
        default: the default value.
        choices: the allowed values; where there are limits too, values that are allowed in addition to them.
        at_least: inclusive lower limit.
        above: exclusive lower limit.
        at_most: inclusive upper limit.
        may_change: whether a run may be continued with another value, because neither its parameters nor its
            checkpoints depend on it.
        of_evaluation: whether an evaluation uses the given value instead of the one of the training run, because the
            key determines what is measured or how.
    """
    limits = {"choices": tuple(choices), "at_least": at_least, "above": above, "at_most": at_most}
    uses = {"may_change": may_change, "of_evaluation": of_evaluation}
    return dataclasses.field(default=default, metadata=limits | uses)


@dataclasses.dataclass(kw_only=True)
class DataConfig:
    """Which images are used, where they are, how they are split, and how crops are drawn from them."""

    name: str = _key("hep2_synthetic", of_evaluation=True)
    """TFDS name of the data set."""
    builder_config: str = _key("", of_evaluation=True)
    """Named configuration of the builder (`cells`, `specimens`, ...). Empty: the one that fits the network."""
    data_dir: str | None = _key(None, may_change=True, of_evaluation=True)
    """Directory of the prepared data sets, also gs://… or s3://…. None: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    manual_dir: str | None = _key(None, may_change=True, of_evaluation=True)
    """Directory of the owner's files, for data sets that need a licence."""
    along: str = ""
    """Networks for cells: TFDS name of a second data set, whose training cells are learned from along with the own ones
    as far as both sets share patterns (see `hep2jax.data.sets.along`). Empty: none."""
    along_manual_dir: str | None = _key(None, may_change=True)
    """`along`: directory of the owner's files. None: `manual_dir`."""
    along_scale: float = _key(1.0, at_least=1e-3, at_most=4.0)
    """`along`: what `scale` is for the own set. Nuclei of both sets should have the same size in the input."""
    protocol: str = _key("contest", choices=PROTOCOLS, of_evaluation=True)
    """contest: the data set's own splits. The others are described in hep2jax.data.splits.protocols."""
    fold: int = _key(0, at_least=0, of_evaluation=True)
    """Which fold (0 to num_folds-1), or which specimen of `loso`, is held out for testing."""
    num_folds: int = _key(7, at_least=2, of_evaluation=True)
    """Number of folds of `kfold`, `blocked` and `random_cells`."""
    split_lists: str = _key("", of_evaluation=True)
    """`holdout`: folder with one or more of training.csv, validation.csv and test.csv."""
    block_gap: int = _key(0, at_least=0, of_evaluation=True)
    """Number of cells that are left out of training at each border between the blocks of `blocked`."""
    protocol_seed: int = _key(0, at_least=0, of_evaluation=True)
    """Seed of the shuffle of `random_cells`. It is separate from `seed`, so that runs with different seeds share their
    folds."""
    validation_fraction: float = _key(0.0, at_least=0.0, at_most=0.9, of_evaluation=True)
    """Share of the training specimens (of the training cells, where the protocol divides cells) that is set aside for
    validation if the protocol has no validation split of its own."""
    channel: str = _key("grey", choices=CHANNELS)
    """grey: mean of the channels; green: the channel that carries the FITC signal of colour images."""
    scale: float = _key(1.0, at_least=1e-3, at_most=4.0)
    """Fields: the working resolution, at most 1; images are shrunk by this factor (area average) before anything else.
    Cells: input pixels per native pixel if `cell_fit` is native or frame."""
    normalise: str = _key("field", choices=dict.fromkeys(FIELD_NORMALISATIONS + CELL_NORMALISATIONS))
    """Fields: field (the median of each image, which is its background, is mapped to 0 and its `top_percentile` to 1),
    log (the same with the logarithm of the grey levels over the background, see `background_window`) or none (grey /
    255). Cells: none (grey / 255), contrast_stretch (the minimum is mapped to 0, `top_percentile` to 1), equalise
    (histogram equalisation) or clahe (contrast-limited adaptive histogram equalisation in 8x8 regions)."""
    mean_centring: bool = False
    """Cells: subtract each cell image's mean after the normalisation ("data centralisation")."""
    background_window: float = _key(0.0, at_least=0.0)
    """`normalise=log`: side, in native pixels, of the window in which the background around is found. It must be wider
    than a cell; two nuclear diameters are usual."""
    top_percentile: float = _key(95.0, at_least=60.0, at_most=100.0)
    """Percentile of the grey levels that `normalise` maps to 1. Near 100, bright dots determine the scale; at lower
    values, down to 100 % minus the share of the foreground, the general level of the cells does."""
    masked: bool = False
    """Cells: whether everything outside the cell's mask is made as dark as the background. False: the crop is used as
    it is."""
    cell_fit: str = _key("stretch", choices=CELL_FITS)
    """How a cell is resized to the square input of `crop_size` pixels. stretch: height and width by separate factors
    (Gao 2017); keep: both by the same factor, so that the longer one fills the input; native: both by `scale`, so that
    sizes stay comparable; frame: as native, with the middle of the mask's bounding box in the middle of the input,
    mirrored beyond the crop. Networks then take three channels in place of the normalised grey levels: two of contrast
    and the depth of each pixel in the cell (see `hep2jax.data.sets.framing`)."""
    cell_margin: float = _key(-1.0, choices=(-1.0,), at_least=0.0, at_most=2.0)
    """Context around the bounding box of the mask, as a share of its longer side. -1: the owner's crop is used as it
    is. Data sets differ in how tightly their cells are cropped; a margin >= 0 makes them alike."""
    cut_cell_margin: int = _key(0, at_least=0)
    """For data sets that do not annotate cells cut by the frame (icpr2012): background nearer than this to the frame,
    in native pixels, is void in training. Metrics are still measured on every pixel."""
    crop_size: int = _key(128, choices=(0,), at_least=8, at_most=8192)
    """Fields: height and width of the square training crop, in pixels at working resolution. Cells: height and width
    of the network's input; 0 means the size that the network was published with (see `hep2jax.tasks.resolve`)."""
    warp: str = _key("auto", choices=WARPS)
    """Where crops are cut, mirrored and rotated. host: by OpenCV, and uint8 crops are sent to the device; device:
    inside the training step, from training images that stay in device memory, so that only indices and matrices are
    sent; auto: device on GPUs and TPUs, which are faster than the host can feed them, otherwise host."""
    foreground_crops: float = _key(0.75, at_least=0.0, at_most=1.0)
    """Share of the crops that are centred on a cell pixel; the others are placed anywhere in the image."""
    bag_tiles: int = _key(8, at_least=1)
    """`mil`: number of crops of a specimen (of an image, if each image has its own patterns) that form one bag in
    training. `train.global_batch_size` counts bags."""
    balance: str = _key("pattern", choices=BALANCES)
    """What is drawn equally often. pattern: every pattern, then its specimens, then their fields or cells;
    specimen: every specimen; class: every pattern, then its fields or cells, whatever their specimens (class-balanced
    sampling); none: every field or cell, once an epoch. An image with several patterns is drawn for each of them;
    images without a pattern are treated as an additional pattern."""


@dataclasses.dataclass(kw_only=True)
class AugmentConfig:
    """Crop-mirror-rotate (CMR, survey section 3.2.2) and photometric jitter of training crops."""

    mirror: bool = True
    rotate: bool = True
    """False: no rotation."""
    rotation_step: float = _key(0.0, at_least=0.0, at_most=360.0)
    """Angles are drawn from the multiples of this many degrees, as in Gao et al. (36, 18, 9). 0: any angle."""
    shift: float = _key(0.0, at_least=0.0, at_most=0.5)
    """Cells: half-width of the uniform shift in each direction, as a share of the input's width."""
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
    """Largest standard deviation of the Gaussian blur, in pixels of the crop; that of each crop is drawn uniformly
    below it. 0: off."""
    noise: float = _key(0.0, at_least=0.0, at_most=255.0)
    """Largest standard deviation of the Gaussian sensor noise, in the 255 grey levels of the image before
    normalisation; that of each crop is drawn uniformly below it. 0: off. Noise well below 1 is lost if crops are
    rounded to integer grey levels (`data.warp=host`)."""
    mixup: float = _key(0.0, at_least=0.0, at_most=16.0)
    """Networks for cells: alpha of mixup, which trains on blends of two cells with shares from Beta(alpha, alpha).
    0: off."""


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
    """Which network is built, and how wide."""

    name: str = "fcn"
    """One of the networks of hep2jax.models; `fisher`, the texture reader of cells (see hep2jax.fisher); or `mean`, the
    mean of trained readers of cells (see `members`)."""
    members: str = ""
    """`mean`: the work directories of two or more trained readers of cells, with commas between; {fold} stands for
    `data.fold` in two digits. Each prepares the cells as it was trained."""
    width: float = _key(1.0, at_least=1e-3, at_most=16.0)
    """Multiplier on every channel count of the published network (rounded to a multiple of 8, at least 8)."""
    depth: int = _key(0, choices=DEPTHS)
    """Layers of `resnet` and `dsrn`, and of the trunk of `dsfcn`: 18, 34 or 50; 0: 50, as published."""
    flatten_side: int = _key(0, at_least=0)
    """`joint`: height and width of the patches. Its two fully connected heads then take the flattened bottleneck
    (published: 384). 0: they take its mean over the patch, which may then have any size."""
    pixel_block: int = _key(1, at_least=1, at_most=8)
    """Networks that label pixels: side of the blocks of pixels that the network takes as one pixel of more channels and
    labels one by one again (after Shi et al. 2016). 2 makes it four times as fast, and outlines stay fine. 1: off."""
    dropout: float = _key(0.0, at_least=0.0, at_most=0.95)
    """Dropout rate before the heads, for networks that have dropout."""
    mixstyle: float = _key(0.0, at_least=0.0, at_most=1.0)
    """Probability with which a training step blends the styles of feature maps in an early layer (MixStyle, published:
    0.5); 0: off."""
    norm_images: int = _key(0, at_least=0)
    """Number of successive images of a training batch whose BatchNorm statistics are taken together (ghost batches,
    after Hoffer et al. 2017); it must divide `train.global_batch_size`. As many as a device holds, or fewer, need no
    exchange between devices. 0: the statistics of the whole batch, over all devices."""
    regions: bool = False
    """Networks for cells that average their feature maps (`vggcell`, `resnet`, `dsrn`, `dcrnet`, `dri`, and
    `efficientnet_lite0` to 2): whether they average over the inside of the cell, its border and a ring outside it, each
    by itself, in their last two maps. Needs `data.cell_fit=frame`."""
    init_from: str = ""
    """Work directory of a pre-trained network (empty: none). Training starts from its parameters wherever path and
    shape agree; heads start from fresh parameters if it was trained on other patterns. `imagenet` means the published
    weights of `efficientnet_lite0`, 1 and 2, which are packages (the extra `pretrained`)."""


@dataclasses.dataclass(kw_only=True)
class FisherConfig:
    """`fisher`, the texture reader of cells. Its other keys: `loss.class_balance` weighs the cells by their pattern."""

    gaussians: int = _key(48, at_least=1, at_most=1024)
    """Number of Gaussians in the mixture of each descriptor."""
    codebook_cells: int = _key(1500, at_least=1)
    """Number of training cells, drawn at random, from which projections and mixtures are fitted."""
    cells_per_specimen: int = _key(80, at_least=0)
    """How many cells of a specimen are learned from, drawn at random; 0: all."""
    cells_along: int = _key(20, at_least=1)
    """How many cells of a specimen are kept in the work directory, for a run that names it in `model.init_from`: that
    run takes the projections and mixtures from there and learns from those cells along with its own."""
    ridge: float = _key(3.0, above=0.0)
    """Strength of the ridge."""
    rings: float = _key(0.0, at_least=0.0)
    """Weight of the kernel of ring patterns; that of dense rootSIFT is 1. 0: off, which halves the time."""
    shape: float = _key(0.0, at_least=0.0)
    """Weight of the kernel of three numbers of shape: area, ratio of the axes, share of the bounding box."""


@dataclasses.dataclass(kw_only=True)
class LossConfig:
    """Cross-entropy of pixels or cells, side heads, Dice and reconstruction."""

    class_balance: float = _key(0.0, at_least=0.0, at_most=4.0)
    """Exponent b of the class weights (1/frequency)^b, which are scaled to a mean of 1 over pixels or cells (over the
    occurrences of patterns, if an image may have several). 0: no weights. Frequencies are those of the training
    batches, so classes that `data.balance` already draws equally often get equal weights."""
    side_weight: float = _key(0.4, at_least=0.0)
    """Weight of each side head's loss (hierarchical supervision)."""
    pattern_weight: float = _key(1.0, at_least=0.0)
    """Networks that label pixels: weight of telling the patterns of cell pixels apart, against 1 for telling cells from
    background. Below 1, few specimens are learned by heart less."""
    gap_weight: float = _key(0.0, at_least=0.0)
    """Networks that label pixels: additional weight of the background in gaps between cells that are at most
    `gap_width` wide, so that near cells stay apart (after Ronneberger et al. 2015). 0: off."""
    gap_width: int = _key(8, at_least=1, at_most=256)
    """In pixels of the crop."""
    dice_weight: float = _key(0.0, at_least=0.0)
    """Weight of the soft foreground Dice loss."""
    reconstruction_weight: float = _key(1.0, at_least=0.0)
    """Weight of the mean squared reconstruction error of `dacn` and `dcae`."""
    label_smoothing: float = _key(0.0, at_least=0.0, at_most=0.99)
    """Share of each target that is spread evenly: over the patterns or, if an image may have several, over the presence
    and the absence of each."""


@dataclasses.dataclass(kw_only=True)
class OptimizerConfig:
    """Optimizer and schedule."""

    name: str = _key("adamw", choices=OPTIMIZERS)
    learning_rate: float = _key(2e-3, above=0.0)
    schedule: str = _key("cosine", choices=SCHEDULES)
    warmup_steps: int | None = _key(None, at_least=0)
    """Steps in which the learning rate rises to its peak. None: 20, or the length of the run if that is shorter."""
    weight_decay: float = _key(1e-4, at_least=0.0)
    momentum: float = _key(0.9, at_least=0.0, at_most=0.9999)
    clip_norm: float = _key(1.0, at_least=0.0)
    """Global gradient norm above which gradients are scaled down. 0: off."""
    ema_decay: float = _key(0.99, at_least=0.0, at_most=0.99999)
    """Decay of the exponential moving average of the parameters, which is what is evaluated. 0: no average."""


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    """Length, batch size and precision of a run, and how often it logs, evaluates and saves."""

    num_steps: int = _key(400, at_least=1)
    global_batch_size: int = _key(8, at_least=1)
    """Crops in a step, over all devices and processes."""
    compute_dtype: str = _key("auto", choices=COMPUTE_DTYPES)
    """auto: bfloat16 on TPU and GPU, float32 on CPU."""
    log_every: int = _key(20, at_least=1, may_change=True)
    eval_every: int = _key(0, at_least=0, may_change=True)
    """Steps between evaluations on the validation split. 0: only at the end."""
    checkpoint_every: int = _key(100, at_least=1, may_change=True)
    keep_latest: int = _key(2, at_least=1, may_change=True)
    keep_best: int = _key(1, at_least=0, may_change=True)
    steps_per_call: int = _key(1, at_least=1)
    """Steps in one call of the compiled program. More than 1 saves the host's overhead for each step (small networks on
    fast devices); log_every, eval_every, checkpoint_every and num_steps must be multiples of it. Not for CPUs, where
    XLA runs convolutions inside loops at a fifth of their speed."""
    prefetch: int = _key(3, at_least=1, may_change=True)
    """Batches that the thread of the input pipeline makes ahead of the step."""


@dataclasses.dataclass(kw_only=True)
class EvaluationConfig:
    """Tiling and metrics of an evaluation."""

    batch_size: int = _key(8, at_least=1)
    """Tiles or cells in a forward pass, over all devices."""
    tile_size: int = _key(192, at_least=8, at_most=8192)
    """Height and width of a tile in pixels, at working resolution."""
    tile_overlap: int = _key(48, at_least=0)
    """Overlap of neighbouring tiles in pixels; they are blended with a raised-cosine window."""
    min_object_pixels: int = _key(30, at_least=0)
    """Predicted objects smaller than this many native pixels are not counted as cells."""
    foreground_threshold: float = _key(0.5, at_least=0.01, at_most=0.99)
    """A pixel is predicted as cell if the summed probability of all classes except background exceeds this."""
    pattern_threshold: float = _key(0.5, at_least=0.01, at_most=0.99)
    """If an image may have several patterns, those of at least this probability are predicted."""
    refer_below: float = _key(-1.0, choices=(-1.0,), at_least=0.0, at_most=1.0)
    """Calibrated confidence below which an image is referred to a reader. -1: the lowest, but at least 0.5, with which
    95 % of the validation examples that are kept are right."""
    dihedral: bool = False
    """Whether to average the predictions over the eight rotations and mirror images of every tile or cell, which takes
    eight times the work."""
    nuclear_diameter: float = _key(0.0, at_least=0.0)
    """Typical diameter of a nucleus in native pixels. 0: unknown. If it is known, touching cells are separated for
    SEG_instances, holes are filled and specks removed, and the options below are available."""
    unsure_band: float = _key(0.0, at_least=0.0, at_most=0.5)
    """Networks that label pixels: where the probability of cell is nearer than this to `foreground_threshold`, Otsu's
    threshold of the logarithm of intensity over background decides, as in the better of the two baselines. 0: off;
    `nuclear_diameter` must be known."""
    cell_reader: str = ""
    """Networks that label pixels: work directory of a reader of single cells (a network, `fisher` or `mean`), in which
    {fold} stands for `data.fold` in two digits. The patterns of cells, fields and specimens are then those that it
    reads in the cells that were found, instead of those of the pixels; `nuclear_diameter` must be known. Empty:
    none."""
    baselines: bool = False
    """Whether to measure Otsu + watershed, in two variants, on the same pixels too."""
    drop_cut_cells: bool = False
    """Whether to leave out predicted cells that are cut by the frame, those of networks and of baselines alike. For
    icpr2012, which does not annotate such cells."""
    gallery_specimens: int = _key(32, at_least=0)
    """Number of specimens of a split that the report shows, evenly chosen if there are more; of cells, this number of
    each pattern, errors first."""


@dataclasses.dataclass(kw_only=True)
class Config:
    """One experiment."""

    seed: int = _key(0, at_least=0)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    fisher: FisherConfig = dataclasses.field(default_factory=FisherConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = dataclasses.field(
        default_factory=EvaluationConfig, metadata={"may_change": True, "of_evaluation": True}
    )


Section = TypeVar("Section")


class Frozen(Generic[Section]):
    """A configuration, or a section of one, as a key of a cache: a copy that equals others with the same values."""

    def __init__(self, section: Section) -> None:
        self.section, self._values = copy.deepcopy(section), repr(section)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)


def check_variant(variant: str, variants: Sequence[str]) -> None:
    """Raise UsageError if a configuration file has no such variant; the variant "" always exists."""
    if variant and variant not in variants:
        known = f"its variants are {', '.join(variants)}" if variants else "it has no variants"
        raise UsageError(f"unknown variant '{variant}' of the configuration: {known}")


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionary of every key, which can be written as JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`; raises UsageError, which names the nearest valid key, for an unknown one."""
    if not isinstance(values, dict):
        raise UsageError("a configuration must be an object of sections")
    config = Config()
    for section, value in values.items():
        _check_known(config, section)
        current = getattr(config, section)
        if not dataclasses.is_dataclass(current):
            setattr(config, section, value)
            continue
        if not isinstance(value, dict):
            raise UsageError(f"configuration section '{section}': must be an object of keys")
        for key, leaf in value.items():
            _check_known(current, key, prefix=f"{section}.")
            setattr(current, key, leaf)
    return config


def save(config: Config, path: pathlib.Path) -> None:
    """Write the configuration as JSON."""
    path.write_text(json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n")


def load(path: pathlib.Path) -> Config:
    """Read what `save` wrote; raises UsageError, which names the file, if it is damaged or holds an invalid value."""
    try:
        return validate(from_dict(files.read_json(path)))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A dotted key of a configuration with its value."""

    name: str
    value: Any
    type: Any
    metadata: dict[str, Any]
    """The arguments of `_key`, together with the metadata of the key's section."""


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
    """The names of all keys, such as `data.name`."""
    return [key.name for key in keys(Config())]


def changed_keys(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of the keys that differ, except those that may change between parts of a run."""
    pairs = zip(keys(old), keys(new), strict=True)
    return [
        (key.name, before.value, key.value)
        for before, key in pairs
        if before.value != key.value and not key.metadata.get("may_change")
    ]


def nearest_key(key: str) -> str:
    """The valid dotted key that is most similar to `key`."""
    names = valid_keys()
    by_leaf = {name.rsplit(".", 1)[-1]: name for name in names}
    full_matches = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    leaf_matches = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
    return full_matches[0] if full_matches else by_leaf[leaf_matches[0]] if leaf_matches else names[0]


def _check_known(holder: Any, key: str, prefix: str = "") -> None:
    if key not in {field.name for field in dataclasses.fields(holder)}:
        raise UsageError(f"unknown configuration key '{prefix}{key}': did you mean '{nearest_key(prefix + key)}'?")


def validate(config: Config) -> Config:
    """Return the configuration if all its values are valid; otherwise raise UsageError naming the first bad key."""
    for key in keys(config):
        _check_type(key)
        _check_limits(key.name, key.value, **key.metadata)
    _check_relations(config)
    return config


def _check_type(key: Key) -> None:
    """Raise UsageError for a value of another type; integers are accepted for floats."""
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
    """Raise UsageError for a value outside the limits that `_key` was given."""
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
        words.append(f"be between {at_least} and {at_most}")
    elif limits:
        words.append("be " + " and ".join(f"{word} {limit}" for limit, word, _ in limits))
    raise UsageError(f"{key}={value}: must {' or '.join(words)}")


def check_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Raise UsageError, which names the key and the nearest choice, for a value that is not among the choices."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1, cutoff=0.0)
        raise UsageError(f"{key}='{value}': must be one of {', '.join(choices)}; the nearest is '{near[0]}'")


def _check_relations(config: Config) -> None:
    """Raise UsageError for values of two keys that do not fit together."""
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
    if config.model.norm_images and train.global_batch_size % config.model.norm_images:
        raise UsageError(
            f"model.norm_images={config.model.norm_images}: must divide "
            f"train.global_batch_size={train.global_batch_size}"
        )
    _check_limits("augment.scale_min", config.augment.scale_min, at_least=0.1, at_most=config.augment.scale_max)
    _check_limits("evaluation.tile_overlap", tiles.tile_overlap, at_least=0, at_most=tiles.tile_size // 2)
    if config.data.normalise == "log" and not config.data.background_window:
        raise UsageError("data.background_window=0: data.normalise=log needs it, in native pixels")
    needing = [key for key in ("unsure_band", "cell_reader", "baselines", "drop_cut_cells") if getattr(tiles, key)]
    if needing and not tiles.nuclear_diameter > 0:
        raise UsageError(f"evaluation.nuclear_diameter=0: {' and '.join(needing)} need it, in native pixels")
