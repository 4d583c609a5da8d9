import importlib
import pathlib
from collections.abc import Iterable

import jax
import numpy as np
import pytest

from hep2jax import config as configs
from hep2jax import config_files, models, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.training import evaluation, optimizers, steps
from hep2jax.training import state as states
from scripts import bench_zoo

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_json_round_trip(tmp_path):
    config = Config(seed=5)
    config.data.manual_dir = "somewhere"
    config.model.width = 0.25
    configs.save(config, tmp_path / "config.json")
    assert configs.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("data.crop_sise", "data.crop_size"),
        ("train.numsteps", "train.num_steps"),
        ("dat.fold", "data.fold"),
        ("learning_rate", "optimizer.learning_rate"),
    ],
)
def test_nearest_key(key: str, nearest: str):
    assert configs.nearest_key(key) == nearest


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UsageError, match=r"'model.widht': did you mean 'model.width'"):
        configs.from_dict({"model": {"widht": 1}})


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("data", "protocol", "los", "nearest is 'loso'"),
        ("data", "name", "icpr2013", "nearest is 'icpr2012'"),
        ("data", "crop_size", 100, "multiple of 32"),
        ("data", "scale", 4.5, "between"),
        ("data", "num_folds", 1, "at least 2"),
        ("model", "width", 0.0, "between"),
        ("train", "num_steps", 0, "at least 1"),
        ("train", "compute_dtype", "float16", "nearest"),
        ("evaluation", "tile_overlap", 500, "between"),
        ("augment", "scale_min", 2.0, "between"),
        ("data", "cell_margin", -0.5, "one of -1.0 or be between 0.0 and 2.0"),
        ("optimizer", "learning_rate", -1.0, "above 0.0"),
        ("optimizer", "learning_rate", 0.0, "above 0.0"),
        ("optimizer", "learning_rate", float("nan"), "finite"),
        ("optimizer", "clip_norm", -1.0, "at least 0.0"),
        ("optimizer", "weight_decay", -1e-4, "at least 0.0"),
        ("augment", "gain", -0.1, "between"),
        ("loss", "dice_weight", float("inf"), "finite"),
        ("data", "scale", float("nan"), "finite"),
        ("optimizer", "learning_rate", 1e300, "finite"),
        ("optimizer", "warmup_steps", 401, "at most train.num_steps=400"),
        ("model", "norm_images", 3, "must divide train.global_batch_size="),
        ("train", "num_steps", 6.0, "type int"),
        ("train", "num_steps", True, "type int"),
        ("augment", "mirror", 1, "type bool"),
        ("data", "name", None, "type str"),
        ("optimizer", "warmup_steps", "some", "type int or None"),
    ],
)
def test_a_bad_value_is_refused_by_name(section: str, key: str, value, message: str):
    config = Config()
    setattr(getattr(config, section), key, value)
    with pytest.raises(UsageError, match=message) as error:
        tasks.resolve(config)
    assert f"{section}.{key}" in str(error.value)


NUMERIC = [key.name for key in configs.keys(Config()) if key.type in (int, float)]


@pytest.mark.parametrize("name", [*NUMERIC, "optimizer.warmup_steps"])
def test_no_key_takes_a_number_that_no_run_can_mean(name: str):
    """Every numeric key has limits of its own: nan, infinities and what lies outside are refused by name."""
    section, _, leaf = name.rpartition(".")
    for value in (-2, float("nan"), float("inf"), float("-inf"), 2**40):
        config = Config()
        setattr(getattr(config, section) if section else config, leaf, value)
        with pytest.raises(UsageError, match=f"^{name}="):
            tasks.resolve(config)


@pytest.mark.parametrize(("num_steps", "warmup"), [(6, 6), (20, 20), (400, 20)])
def test_a_warm_up_that_nobody_asked_for_fits_the_run(num_steps: int, warmup: int):
    config = Config()
    config.train.num_steps = num_steps
    tasks.resolve(config)
    assert optimizers.warmup_steps(config.optimizer, num_steps) == warmup


FILES = sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py"))


@pytest.mark.parametrize("file", FILES)
def test_shipped_configurations_and_their_variants_are_valid(file: str):
    variants = importlib.import_module(f"configs.{file}").VARIANTS
    shipped = [tasks.resolve(config_files.load(f"{file}:{variant}")) for variant in ("", *variants)]
    for config in shipped:
        assert configs.from_dict(configs.to_dict(config)) == config
    assert len({str(config) for config in shipped}) == len(shipped), "two variants are the same"
    with pytest.raises(UsageError, match=f"'publishd'.*{', '.join(variants) or 'no variants'}$"):
        config_files.load(f"{file}:publishd")


@pytest.mark.parametrize("name", models.CLASSIFIERS)
def test_a_cell_network_supplies_the_side_of_its_input(name: str):
    """Also where the command line names another network than the file; a side that is given stays."""
    config = config_files.load("cnn")
    config.model.name = name
    side = tasks.resolve(config).data.crop_size
    assert side == (78 if name == "gao" else 128 if name.startswith("efficientnet") else 80)
    assert config.data.crop_size == 0
    config.data.crop_size = 64
    assert tasks.resolve(config).data.crop_size == 64


def test_only_cells_are_enlarged():
    config = config_files.load("cnn")
    config.data.scale = 1.5
    assert tasks.resolve(config).data.scale == 1.5
    config = config_files.load("fcn")
    config.data.scale = 1.5
    with pytest.raises(UsageError, match="^data.scale=1.5: fields are shrunk, never enlarged"):
        tasks.resolve(config)


@pytest.mark.parametrize("name", [name for name in models.NETWORKS if name not in models.CLASSIFIERS])
def test_other_networks_have_no_side_of_their_own(name: str):
    config = Config()
    config.model.name, config.data.crop_size = name, 0
    with pytest.raises(UsageError, match="^data.crop_size=0: must"):
        tasks.resolve(config)


def test_an_evaluation_takes_what_says_where_and_how_to_measure():
    saved, given = Config(seed=1), Config(seed=2)
    given.data.fold, given.data.builder_config, given.evaluation.dihedral = 3, "mixed", True
    given.data.scale, given.model.width, given.train.num_steps = 0.5, 0.5, 7
    merged = evaluation.evaluation_config(saved, given)
    assert (merged.data.fold, merged.data.builder_config, merged.evaluation.dihedral) == (3, "mixed", True)
    assert (merged.seed, merged.data.scale, merged.model, merged.train) == (1, 1.0, saved.model, saved.train)
    assert saved == Config(seed=1)


def _quick(*names: str, others: Iterable[str]) -> list:
    """Parameters of which the others are in the slow lane: large networks take long to trace."""
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


@pytest.mark.parametrize("name", _quick("fcn", "unet", others=("fcrn", "dsfcn")))
def test_published_segmenters_lower_to_a_training_step(name: str):
    state = _trace_step(name)
    assert states.num_parameters(state.params) > 2e7


@pytest.mark.parametrize(
    "name", _quick("cnn", "dacn", others=[name for name in bench_zoo.OF_CELLS if name not in ("cnn", "dacn")])
)
def test_published_classifiers_lower_to_a_training_step(name: str):
    state = _trace_step(name)
    assert states.num_parameters(state.params) > (50_000 if name == "cnn" else 1e6)


def _trace_step(name: str) -> states.TrainState:
    """Traces the step of the published network with its published batch; nothing is compiled or allocated."""
    config = tasks.resolve(config_files.load(f"{name}:published"))
    network = states.make_network(config, 9)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = jax.eval_shape(lambda: states.fresh_state(network, optimizer, jax.random.key(0)))
    kind = tasks.kind(config)
    batch = kind.batch_shapes(config, config.train.global_batch_size)
    step = steps.make_train_step(config, network, kind.loss)
    constants = {"class_weights": jax.ShapeDtypeStruct((9,), np.float32)}
    after, metrics = jax.eval_shape(step, state, batch, constants)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    return state
