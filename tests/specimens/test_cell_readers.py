"""SVMs and neighbours on features; a cell network as it is. Whole specimens are held out everywhere."""

import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig
from hep2jax.data.sets.cells import preprocess
from hep2jax.errors import UsageError
from hep2jax.specimens import cell_readers, features
from hep2jax.specimens.cell_readers import FeatureReader, Grid, NetworkReader, fit_svm_knn
from hep2jax.tasks.cells import CellEvaluator
from hep2jax.training import optimizers
from hep2jax.training import state as states
from tests.data.cell_tables import picture

SMALL = Grid(costs=(1e-3, 1e-1), neighbours=(5, 1), folds=3)


def made_up_features(seed: int, *, num_patterns: int = 4, specimens: int = 4, cells: int = 8, shift: float = 0.0):
    """`good` tells patterns apart; `leaky` only specimens, by numbers of their own; `noise` nothing."""
    rng = np.random.default_rng(seed)
    patterns = np.repeat(np.arange(num_patterns), specimens * cells)
    number = np.repeat(np.arange(num_patterns * specimens), cells)
    good = np.eye(num_patterns)[patterns] + rng.normal(0, 0.25, (len(patterns), num_patterns))
    own = rng.normal(0, 3, (num_patterns * specimens, 40))
    layers = {
        "noise": rng.normal(size=(len(patterns), 30)),
        "leaky": own[number] + rng.normal(0, 0.05, (len(patterns), 40)),
        "good": good * 10 + shift,
    }
    return {name: rows.astype(np.float32) for name, rows in layers.items()}, patterns, [f"s{i}" for i in number]


def test_the_layer_that_holds_on_new_specimens_is_chosen():
    """Held-out cells would choose `leaky`, in which each specimen is a tight cluster."""
    layers, patterns, specimens = made_up_features(0)
    fitted = fit_svm_knn(layers, patterns, specimens, 4, grid=SMALL)
    assert fitted.layer == "good"
    assert fitted.inner_mca > 0.9
    new, truth, _ = made_up_features(1)
    scores = fitted.read(new)
    assert scores.shape == (len(truth), 4)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(1), 1)
    assert (scores.argmax(1) == truth).mean() > 0.9


def test_out_of_fold_readings_come_from_other_specimens():
    """On features that only tell specimens apart they are no better than chance, the fit itself is perfect."""
    layers, patterns, specimens = made_up_features(0)
    fitted = fit_svm_knn({"leaky": layers["leaky"]}, patterns, specimens, 4, grid=SMALL)
    out_of_fold = (fitted.out_of_fold.argmax(1) == patterns).mean()
    assert out_of_fold < 0.6
    assert out_of_fold + 0.25 < (fitted.svms.predict(layers["leaky"]) == patterns).mean()


def test_readings_of_new_cells_are_no_surer_than_they_are_right():
    """On weak features: SVMs part the cells that they were fitted on, so that among those all neighbours agree."""
    patterns, number = np.repeat(np.arange(3), 72), np.repeat(np.arange(18), 12)

    def weak(seed: int) -> dict[str, np.ndarray]:
        noise = np.random.default_rng(seed).normal(size=(len(patterns), 60))
        noise[:, :3] += 1.2 * np.eye(3)[patterns]
        return {"weak": noise.astype(np.float32)}

    grid = Grid(costs=(1e-1,), neighbours=(15,), folds=3)
    fitted = fit_svm_knn(weak(0), patterns, [f"s{i}" for i in number], 3, grid=grid)
    scores = fitted.read(weak(1))
    right = (scores.argmax(1) == patterns).mean()
    assert 0.4 < right < 0.7
    assert scores.max(1).mean() == pytest.approx(right, abs=0.1)


def test_the_rarer_pattern_counts_as_much_as_the_other():
    """180 cells against 20 that overlap: the SVMs cut half way, and what is chosen by is the mean of the recalls."""
    rng, patterns = np.random.default_rng(1), np.repeat([0, 1], [180, 20])
    specimens = [f"{pattern}-{i % (9 - 4 * pattern)}" for i, pattern in enumerate(patterns)]
    features = (rng.normal(size=(200, 1)) + 1.5 * patterns[:, None]).astype(np.float32)
    fitted = fit_svm_knn({"one": features}, patterns, specimens, 2, grid=Grid(costs=(0.1,), neighbours=(5,), folds=3))
    below, middle, above = fitted.svms.decision_function([[0.0], [0.75], [1.5]])
    assert abs(middle) < 0.2 < min(-below, above)
    right = fitted.out_of_fold.argmax(1) == patterns
    assert fitted.inner_mca == pytest.approx((right[:180].mean() + right[180:].mean()) / 2)
    assert abs(fitted.inner_mca - right.mean()) > 0.1


def test_nearer_neighbours_count_more():
    """Of two that disagree the nearer has the share of its inverse distance."""
    layers, patterns, specimens = made_up_features(0)
    grid = Grid(costs=(1e-3,), neighbours=(2,), folds=3)
    fitted = fit_svm_knn({"noise": layers["noise"]}, patterns, specimens, 4, grid=grid)
    noise = made_up_features(1)[0]["noise"][:20]
    distances, _ = fitted.knn.kneighbors(fitted.svms.decision_function(noise))
    highest = fitted.read({"noise": noise}).max(1)
    apart = highest < 1
    assert 5 < apart.sum() < 20
    nearer = (1 / distances.min(1)) / (1 / distances).sum(1)
    np.testing.assert_allclose(highest[apart], nearer[apart])


def test_equal_choices_go_to_the_first():
    layers, patterns, specimens = made_up_features(0)
    twice = {"first": layers["good"] * 100, "second": layers["good"] * 100}
    separable = {name: np.where(rows > 500, 1000, 0).astype(np.float32) for name, rows in twice.items()}
    fitted = fit_svm_knn(separable, patterns, specimens, 4, grid=SMALL)
    again = fit_svm_knn(separable, patterns, specimens, 4, grid=SMALL)
    assert fitted.layer == "first"
    assert (fitted.cost, fitted.neighbours) == (again.cost, again.neighbours)
    np.testing.assert_array_equal(fitted.out_of_fold, again.out_of_fold)


def test_features_are_standardised():
    """A shift and a scale of all features change no reading."""
    readings = []
    for shift in (0.0, 5e3):
        layers, patterns, specimens = made_up_features(0, shift=shift)
        fitted = fit_svm_knn({"good": layers["good"]}, patterns, specimens, 4, grid=SMALL)
        readings.append(fitted.read({"good": made_up_features(1, shift=shift)[0]["good"]}).argmax(1))
    assert (readings[0] == readings[1]).mean() > 0.98


@pytest.mark.parametrize("num_patterns", [2, 4])
def test_a_pattern_without_specimens_is_never_read(num_patterns: int):
    layers, patterns, specimens = made_up_features(0, num_patterns=num_patterns)
    fitted = fit_svm_knn({"good": layers["good"]}, patterns, specimens, 6, grid=SMALL)
    scores = fitted.read(layers)
    assert scores.shape == (len(patterns), 6)
    assert not scores[:, num_patterns:].any()
    assert (scores.argmax(1) == patterns).mean() > 0.9


def test_a_pattern_with_one_specimen_is_learnt():
    layers, patterns, specimens = made_up_features(0)
    kept = [i for i, (p, s) in enumerate(zip(patterns, specimens, strict=True)) if p != 3 or s == "s12"]
    rows = {"good": layers["good"][kept]}
    fitted = fit_svm_knn(rows, patterns[kept], [specimens[i] for i in kept], 4, grid=SMALL)
    new, truth, _ = made_up_features(1)
    assert (fitted.read(new).argmax(1)[truth == 3] == 3).mean() > 0.5


def test_too_few_specimens_and_unknown_ones():
    layers, patterns, specimens = made_up_features(0, specimens=1)
    with pytest.raises(UsageError, match="too few specimens"):
        fit_svm_knn(layers, patterns, specimens, 4, grid=SMALL)
    with pytest.raises(UsageError, match="8 cells have no specimen"):
        fit_svm_knn(layers, patterns, [name if name != "s0" else "" for name in specimens], 4, grid=SMALL)


# Made-up cells of four patterns, read by a tiny network of the zoo.

CONFIG = Config(
    data=DataConfig(crop_size=48, normalise="contrast_stretch"),
    model=ModelConfig(name="vggcell", width=0.25),
    evaluation=EvaluationConfig(batch_size=32),
)


def half_moon(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A fourth pattern beside disc, ring and dots: the nucleus is bright on one side."""
    image, mask = picture(0, rng)
    columns = np.arange(image.shape[1]) > image.shape[1] / 2
    return np.where(mask & columns, image, np.minimum(image, 25)).astype(np.uint8), mask


def made_up_cells(rng: np.random.Generator, *, specimens: int, cells: int = 6):
    """Ready pictures, grey maps, patterns and specimens; every specimen has its own brightness."""
    images, tone_curve, patterns, names = [], [], [], []
    for pattern in range(4):
        for number in range(specimens):
            dim = rng.uniform(0.4, 1.0)
            for _ in range(cells):
                image, mask = half_moon(rng) if pattern == 3 else picture(pattern, rng)
                ready, grey = preprocess((image * dim).astype(np.uint8), mask, CONFIG.data)
                images.append(ready)
                tone_curve.append(grey)
                patterns.append(pattern)
                names.append(f"{pattern}-{number}")
    return images, tone_curve, np.array(patterns), names


@pytest.fixture(scope="module")
def tiny():
    """The network with fresh parameters, and its mesh."""
    network, mesh = states.make_network(CONFIG, 4), meshes.make_mesh()
    optimizer = optimizers.make_optimizer(CONFIG.optimizer, 10)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    return network, (state.params, state.batch_stats), mesh


def test_features_svms_and_neighbours_read_new_specimens(tiny):
    """Cascio's reader from end to end on features of an untrained network: chance is 0.25."""
    network, parameters, mesh = tiny
    source = features.from_network(CONFIG, network, parameters)
    extractor = features.Extractor(source, mesh, batch_size=32)
    images, tone_curve, patterns, names = made_up_cells(np.random.default_rng(0), specimens=4)
    fitted = fit_svm_knn(extractor.extract(images, tone_curve).layers, patterns, names, 4, grid=SMALL)
    reader: cell_readers.CellReader = FeatureReader(extractor=extractor, classifier=fitted)
    images, tone_curve, truth, _ = made_up_cells(np.random.default_rng(1), specimens=3)
    scores = reader.read(images, tone_curve)
    assert scores.shape == (72, 4)
    assert (scores.argmax(1) == truth).mean() > 0.8


def test_a_network_s_probabilities_as_they_are(tiny):
    network, parameters, mesh = tiny
    evaluator = CellEvaluator(CONFIG, network, mesh)
    reader: cell_readers.CellReader = NetworkReader(evaluator=evaluator, parameters=parameters)
    images, tone_curve, *_ = made_up_cells(np.random.default_rng(0), specimens=1, cells=2)
    scores = reader.read(images, tone_curve)
    np.testing.assert_array_equal(scores, evaluator.predict(parameters, images, tone_curve))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
