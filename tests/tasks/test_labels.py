"""`mil` on images of several patterns: losses, batches, what is left out, and runs from training to prediction."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import mil
from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import predict
from hep2jax.config import AugmentConfig, Config, DataConfig, EvaluationConfig, LossConfig, ModelConfig, TrainConfig
from hep2jax.data.sets import images, prepare
from hep2jax.data.sets.images import ImageSet
from hep2jax.data.splits import lists, protocols
from hep2jax.data.streams.bags import BagPlan, from_images
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from hep2jax.metrics import Estimate, multilabel_metrics, to_dict
from hep2jax.models.classifier import ClassifierOutput
from hep2jax.tasks import labels
from hep2jax.tasks.labels import LabelsMetrics, LabelsResult, LabelsTask, probabilities
from hep2jax.training import evaluation, folds, losses, optimizers, steps
from hep2jax.training import state as states
from tests.data import labelled
from tests.tfds_builders import test_aida

_BAGS, _TILES, _SIDE, _STEPS = 8, 2, 48, 160


def _config(balance: str = "pattern") -> Config:
    config = Config(
        data=DataConfig(crop_size=_SIDE, bag_tiles=_TILES, balance=balance),
        augment=AugmentConfig(rotate=False, scale_min=1, scale_max=1, gain=0.1, gamma=0, offset=0),
        model=ModelConfig(name="mil", width=0.1),
        train=TrainConfig(num_steps=_STEPS, global_batch_size=_BAGS),
        evaluation=EvaluationConfig(tile_size=_SIDE, tile_overlap=8, batch_size=16),
    )
    config.optimizer.learning_rate, config.optimizer.ema_decay = 1e-2, 0.0
    return config


def _shrunk(config: Config) -> Config:
    """A shipped configuration as a run of seconds."""
    config.data.scale, config.data.crop_size, config.data.bag_tiles = 1.0, 32, 2
    config.model.width = 0.05
    config.train = TrainConfig(num_steps=3, global_batch_size=4, log_every=1, eval_every=3)
    config.evaluation = EvaluationConfig(tile_size=32, tile_overlap=0, batch_size=8)
    return configs.validate(config)


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_binary_cross_entropy_by_hand(smoothing):
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 30.0, -3.0]])
    labels = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    weights = np.array([0.5, 2.0, 0.0], np.float32)
    expected = []
    for x, y, w in zip(logits.ravel(), labels.ravel(), np.tile(weights, 2), strict=True):
        p, t = 1 / (1 + np.exp(-x)), (1 - smoothing) * y + smoothing / 2
        expected.append(-w * t * np.log(p) - (1 - t) * np.log1p(-p))
    output = ClassifierOutput(jnp.asarray(logits, jnp.float32))
    config = LossConfig(label_smoothing=smoothing)
    said = losses.label_loss(output, jnp.asarray(labels), jnp.asarray(weights), config)
    assert float(said) == pytest.approx(np.mean(expected), rel=1e-4)


def test_huge_logits_have_a_finite_loss_and_gradient():
    labels = jnp.array([[1.0, 0.0]])

    def loss(logits):
        return losses.label_loss(ClassifierOutput(logits), labels, jnp.ones(2), LossConfig())

    value, gradient = jax.value_and_grad(loss)(np.array([[-1e4, 1e4]], np.float32))
    assert float(value) == pytest.approx(1e4)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5]])


# Batches


def test_the_stream_makes_bags_of_one_image_with_its_labels():
    found, config = labelled.image_set(), _config("none")
    bags = from_images(found, range(len(found)))
    batch = Stream(BagPlan(config, bags)).batch(5)
    assert batch["image"].shape == (_BAGS * _TILES, _SIDE, _SIDE)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((_BAGS, 3), np.float32)
    assert batch["tone_curve"].shape == (_BAGS * _TILES, 4)
    halves = [Stream(BagPlan(config, bags), rows=rows).batch(5) for rows in (slice(0, 4), slice(4, 8))]
    for name, array in batch.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), array)
    stream = Stream(BagPlan(config, bags))
    epochs = np.concatenate([stream.batch(step)["labels"] for step in range(3)])  # two, of 12 each
    assert epochs.sum(0).tolist() == [12, 12, 0]


@pytest.mark.parametrize(
    ("balance", "kinds"),
    [
        ("pattern", {(): 1 / 3, (0,): 1 / 4, (1,): 1 / 6, (0, 1): 1 / 12 + 1 / 6}),
        ("specimen", {(): 1 / 6, (0,): 1 / 2, (1,): 1 / 6, (0, 1): 1 / 6}),
    ],
)
def test_balance_draws_an_image_for_each_of_its_patterns(balance, kinds):
    found = labelled.image_set(((0,), (0,), (0,), (1,), (0, 1), ()), repeats=1)
    stream = Stream(BagPlan(_config(balance), from_images(found, range(6))))
    labels = np.concatenate([stream.batch(step)["labels"] for step in range(150)])
    for kind, share in kinds.items():
        row = np.isin(range(3), kind)
        assert (labels == row).all(1).mean() == pytest.approx(share, abs=0.05), kind


def test_what_cannot_be_trained_on_is_refused():
    negatives = labelled.image_set(((),))
    with pytest.raises(UsageError, match="dots: none of the 3 images to train on has a pattern"):
        LabelsTask(_config(), negatives).stream(range(3), slice(0, _BAGS))
    config = _config()
    config.data.crop_size = 96
    with pytest.raises(UsageError, match=r"image-0: 64x64 pixels .* smaller than data.crop_size=96"):
        LabelsTask(config, labelled.image_set()).stream(range(3), slice(0, _BAGS))


# Who is left out, and protocols


def _changed(found: ImageSet, number: int, **values) -> ImageSet:
    rows = [dataclasses.replace(row, **values) if i == number else row for i, row in enumerate(found.images)]
    return dataclasses.replace(found, images=tuple(rows))


def test_images_of_unknown_patterns_or_specimens_are_left_out_and_said():
    found = _changed(labelled.image_set(), 1, patterns_known=False)
    kept, notes = images.usable(found)
    assert [row.identifier for row in kept.images] == [f"image-{i}" for i in range(12) if i != 1]
    assert notes == ("1 of 12 images left out: their patterns are not all known",)
    task = LabelsTask(_config(), _changed(found, 3, specimen="", group=""))
    assert len(task.items) == 10
    assert task.notes == (*notes, "1 of 12 images left out: their specimen is not known")
    assert images.usable(labelled.image_set())[1] == ()


def test_a_set_without_specimens_is_kept_and_one_without_labels_refused():
    found = labelled.image_set()
    nameless = dataclasses.replace(
        found, images=tuple(dataclasses.replace(row, specimen="", group="") for row in found.images)
    )
    assert len(images.usable(nameless)[0]) == 12
    with pytest.raises(UsageError, match="kfold needs specimen ids"):
        protocols.partition(DataConfig(protocol="kfold"), "dots", nameless.items)
    strange = tuple(dataclasses.replace(row, patterns_known=False) for row in found.images)
    with pytest.raises(UsageError, match="dots: there is no image, of its 12, whose patterns are all known"):
        images.usable(dataclasses.replace(found, images=strange))


def test_the_rarest_pattern_of_an_image_is_its_first():
    items = labelled.image_set(((0,), (0, 1), ()), repeats=2).items
    assert [item.patterns for item in items[:3]] == [(0,), (1, 0), (3,)]


def test_protocols_spread_patterns_and_keep_patients_together():
    made = [labelled.image(i, kind, specimen=f"p{i // 2}") for i, kind in enumerate([(0,), (0, 1), (), ()] * 4)]
    found = ImageSet(name="dots", classes=labelled.CLASSES, images=tuple(made))
    data = DataConfig(protocol="kfold", num_folds=2, validation_fraction=0.25)
    for fold in range(2):
        part = protocols.partition(dataclasses.replace(data, fold=fold), "dots", found.items, found.classes)
        assert not part.specimen_leakage
        for side in (part.train, part.test):
            assert sum(len(found.items[i].patterns) > 1 for i in side) >= 1
            assert any(found.items[i].patterns == (3,) for i in side)


def test_a_fold_of_many_patients_is_said_shortly():
    items = labelled.image_set(repeats=14).items
    part = protocols.partition(DataConfig(protocol="kfold", num_folds=2), "dots", items, labelled.CLASSES)
    assert part.description == "kfold, by specimen, fold 1 of 2: s0, s1, s11, ... (28 specimens)"
    few = protocols.partition(DataConfig(protocol="kfold", num_folds=28), "dots", items, labelled.CLASSES)
    assert few.description.endswith("fold 1 of 28: s0, s1")


def test_a_pattern_that_is_measured_but_not_trained_on_is_said():
    found = _changed(labelled.image_set(), 11, patterns=np.array([1, 0, 1], np.float32), split="test")
    part = protocols.partition(DataConfig(), "dots", found.items, found.classes)
    assert part.description.endswith("nothing to train on of absent")


def test_a_list_may_name_any_pattern_of_an_image(tmp_path):
    items = labelled.image_set(((0, 1), ()), repeats=1).items
    (tmp_path / "training.csv").write_text("Image ID,class\nimage-0,coarse\nimage-1,\n")
    assert lists.assign(str(tmp_path), "dots", items, labelled.CLASSES).splits == ("train", "train")
    for line, said in (("image-0,absent", "but is 'fine + coarse' in"), ("image-1,fine", "but has no pattern in")):
        (tmp_path / "training.csv").write_text(f"Image ID,class\n{line}\n")
        with pytest.raises(UsageError, match=said.replace("+", r"\+")):
            lists.assign(str(tmp_path), "dots", items, labelled.CLASSES)


# Learning, and whole runs


@pytest.mark.slow
def test_learns_a_dozen_images_by_heart():
    found = labelled.image_set()
    task, mesh = LabelsTask(_config(), found), meshes.make_mesh()
    network = states.make_network(task.config, task.num_outputs)
    state = states.initial_state(
        network, optimizers.make_optimizer(task.config.optimizer, _STEPS), 0, meshes.replicated(mesh)
    )
    quick = {"xla_backend_optimization_level": 0}  # compiling takes longer here than running
    step = jax.jit(steps.make_train_step(task.config, network, task.loss), donate_argnums=0, compiler_options=quick)
    stream = task.stream(range(12), slice(0, _BAGS))
    shares = stream.frequencies()
    assert shares.tolist() == [0.5, 0.5, 0]
    for number in range(_STEPS):
        state, metrics = step(state, stream.batch(number), {"class_weights": (shares > 0).astype(np.float32)})
    assert np.isfinite(metrics["loss"])
    rows = task.evaluator(network, mesh).measure((state.params, state.batch_stats), range(12))
    measured = task.metrics(rows)
    of_images = measured.images
    assert (of_images.mAP.value, of_images.exact_match.value, of_images.num_specimens) == (1.0, 1.0, 12)
    assert max(probabilities(row)[2] for row in rows) < 0.5  # never seen, so learnt as absent
    assert task.score(measured) == task.summary(measured)["mAP"] == 1.0
    assert task.describe("test", measured).startswith("test: 12 images of 12 specimens: mAP 1.000 [0.7")
    assert task.details(measured) == ["average precision: fine 1.000, coarse 1.000"]
    records = [task.to_record(row) for row in rows]
    assert [task.to_record(task.from_record(json.loads(json.dumps(record)))) for record in records] == records


def _write_aida(root):
    """Eight patients with two images each, one of them with a term that nobody knows; one image without a patient."""
    (root / "aida_project_database").mkdir(parents=True)
    terms, kinds = ["AC-4", "AC-5", "AC-4; AC-5", ""], [(0,), (1,), (0, 1), ()]
    rows = []
    for i in range(17):
        name = f"i{i:02d}.png"
        Image.fromarray(labelled.picture(kinds[i % 4], i, 80)).save(root / "aida_project_database" / name)
        term = "strange" if i == 5 else terms[i % 4]
        rows.append([i // 2 + 1 if i < 16 else "", name, "Positive" if term else "Negative", term, 40])
    test_aida.write_csv(root / f"{test_aida.layout.TABLE_NAME}.csv", [test_aida.HEAD, *rows])


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """The folds of a made-up AIDA, trained for three steps each: configuration, work directory, pooled metrics."""
    root = tmp_path_factory.mktemp("aida")
    _write_aida(root / "manual")
    config = mil.get_config("aida")
    config.data.data_dir, config.data.manual_dir = str(root / "data"), str(root / "manual")
    config.data.num_folds, config.data.validation_fraction = 2, 0.25
    config = _shrunk(config)
    return config, root / "work", folds.run(config, root / "work")[1]


def test_folds_of_patients_are_trained_pooled_and_reported(crossed):
    _, directory, pooled = crossed
    of_images = pooled.measured.images
    assert (of_images.num_examples, of_images.num_specimens) == (15, 8)
    assert pooled.specimen_leakage is False
    assert 0 < of_images.mAP.value <= 1
    reasons = ("their patterns are not all known", "their specimen is not known")
    notes = [f"1 of 17 images left out: {why}" for why in reasons]
    assert to_dict(pooled)["notes"] == notes
    sides = json.loads((directory / "fold-00" / "report" / "metrics.json").read_text())
    assert set(sides) == {"validation", "test"}
    assert sides["test"]["per_class"]["AC-29"]["average_precision"] is None
    records = json.loads((directory / "fold-00" / "report" / "records.json").read_text())["splits"]["test"]
    assert not {"i05.png", "i16.png"} & {record["identifier"] for record in records}
    page = (directory / "fold-00" / "report" / "index.html").read_text()
    for words in ("macro F1", "Average precision", "AC-4", *notes):
        assert words in page
    lines = [json.loads(line) for line in (directory / "fold-00" / "metrics.jsonl").read_text().splitlines()]
    assert {"mAP", "f1_micro", "exact_match"} <= next(line for line in lines if line["split"] == "validation").keys()


def test_evaluate_alone_says_the_same(crossed, capsys):
    config, directory, _ = crossed
    path = directory / "fold-00" / "report" / "metrics.json"
    before = json.loads(path.read_text())
    evaluation.run(config, directory / "fold-00")
    assert json.loads(path.read_text()) == before
    assert "1 of 17 images left out: their patterns are not all known" in capsys.readouterr().out


def test_prediction_names_every_pattern_above_the_threshold(crossed, tmp_path):
    _, directory, _ = crossed
    paths = sorted(map(str, (directory.parent / "manual" / "aida_project_database").glob("i0[0-3].png")))
    predict.predict(directory / "fold-00", paths, tmp_path / "out")
    written = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    judged = ["confidence", "novelty", "verdict"]
    patterns = [f"AC-{k}" for k in range(1, 30)]
    assert list(written[0]) == ["image", "page", "patterns", "icap", *judged, *patterns, "entropy"]
    assert [row["image"] for row in written] == paths
    for row in written:
        shares = {name: float(row[name]) for name in (f"AC-{k}" for k in range(1, 30))}
        named = [name for name in row["patterns"].split(" + ") if name != "none"]
        assert [shares[name] for name in named] == sorted((shares[name] for name in named), reverse=True)
        assert {name for name, p in shares.items() if p > 0.5} <= set(named)  # shares are rounded
        assert {name for name, p in shares.items() if p < 0.5}.isdisjoint(named)
        assert row["icap"] == " + ".join(named)


def test_a_prediction_in_words():
    classes, values = ("homogeneous", "nucleolar", "golgi"), np.array([0.61, 0.9, 0.2])
    reading = labels.several_patterns(values, classes, 0.6)
    assert (reading.pattern, reading.icap_in_words) == ("nucleolar + homogeneous", "AC-8 to AC-10 + AC-1")
    assert reading.icap == ("AC-8", "AC-9", "AC-10", "AC-1")
    assert reading.probabilities == {"homogeneous": 0.61, "nucleolar": 0.9, "golgi": 0.2}
    none = labels.several_patterns(values, classes, 0.95)
    assert (none.pattern, none.icap_in_words, none.patterns) == ("none", "", ())


def test_a_network_for_several_patterns_is_not_measured_on_one(crossed, data_dir):
    config, directory, _ = crossed
    data = DataConfig(builder_config="specimens_tiny", data_dir=str(data_dir))
    with pytest.raises(UsageError, match="trained on several patterns per image; hep2_synthetic has one"):
        evaluation.run(dataclasses.replace(config, data=data), directory / "fold-00")


def test_the_data_set_says_whether_images_have_several_patterns(tmp_path):
    config = DataConfig(name="aida", data_dir=str(tmp_path))
    assert images.is_multilabel(config)
    assert images.is_multilabel(DataConfig(builder_config="mixed"))
    assert not images.is_multilabel(DataConfig())
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="no configuration 'mixt'"):
        prepare.features("hep2_synthetic", "mixt")


def test_checkpoints_are_ranked_by_the_mean_average_precision():
    task = LabelsTask(_config(), labelled.image_set())
    of_images = multilabel_metrics([[1, 0]], [[0.9, 0.2]], "a", ("x", "y"))
    sides = [
        dataclasses.replace(of_images, mAP=Estimate(value=value), hamming=Estimate(value=wrong))
        for value, wrong in ((None, 0.9), (0.2, 0.8), (0.9, 0.1))
    ]
    assert [task.score(LabelsMetrics(images=side, notes=())) for side in sides] == [0, 0.2, 0.9]


def test_metrics_decide_by_the_configured_threshold():
    """One image with a pattern of probability one half."""
    config = _config()
    row = LabelsResult(
        identifier="a",
        specimen="s",
        group="s",
        truth=(1, 0, 0),
        logits=np.array([0.0, -9.0, -9.0]),
        mass=0.0,
        attention=np.ones(1),
        corners=np.zeros((1, 2), int),
    )
    for threshold, exact in ((0.4, 1.0), (0.6, 0.0)):
        config.evaluation.pattern_threshold = threshold
        measured = LabelsTask(config, labelled.image_set()).metrics([row]).images
        assert (measured.exact_match.value, measured.threshold) == (exact, threshold)


def test_a_threshold_outside_its_range_is_refused():
    config = _config()
    config.evaluation.pattern_threshold = 1.0
    with pytest.raises(UsageError, match=r"evaluation.pattern_threshold=1.0: must be between"):
        configs.validate(config)
