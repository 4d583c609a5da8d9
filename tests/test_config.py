import pytest

from hep2jax import config as configs
from hep2jax.config import Config
from hep2jax.errors import UsageError


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
        ("data", "scale", 1.5, "between"),
        ("data", "num_folds", 1, "at least 2"),
        ("model", "width", 0.0, "between"),
        ("train", "num_steps", 0, "at least 1"),
        ("train", "compute_dtype", "float16", "nearest"),
        ("evaluation", "tile_overlap", 500, "between"),
        ("augment", "scale_min", 2.0, "between"),
    ],
)
def test_a_bad_value_is_refused_by_name(section: str, key: str, value, message: str):
    config = Config()
    setattr(getattr(config, section), key, value)
    with pytest.raises(UsageError, match=message) as error:
        configs.validate(config)
    assert f"{section}.{key}" in str(error.value)


@pytest.mark.parametrize("name", ["fcn", "fcrn", "dsfcn", "unet", "icpr2012_fcn", "icpr2012_dsfcn"])
def test_shipped_configurations_are_valid(name: str):
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = configs.validate(module.get_config())
    assert configs.from_dict(configs.to_dict(config)) == config
