import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from hep2jax.config import LossConfig
from hep2jax.models import ClassifierOutput, SegmenterOutput
from hep2jax.ops import space_to_depth
from hep2jax.training import losses

CLASSES = 4
WEIGHTS = jnp.array([0.5, 1.0, 2.0, 3.0])

# Compiled whole: of one operation after the other, each would be compiled by itself.
pixel_cross_entropy = jax.jit(losses.pixel_cross_entropy, static_argnums=3)
soft_dice = jax.jit(losses.soft_dice)


def losses_of(logits, labels, weights, config):
    return jax.jit(lambda *batch: losses.segmentation_loss(SegmenterOutput(batch[0]), *batch[1:], config))(
        logits, labels, weights
    )


@pytest.fixture
def logits() -> jax.Array:
    return jnp.asarray(3 * np.random.default_rng(0).normal(size=(3, 8, 6, CLASSES)).astype(np.float32))


@pytest.fixture
def labels() -> jax.Array:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, (3, 8, 6)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = losses.VOID
    labels[2, :6] = losses.VOID  # examples of very different weight
    return jnp.asarray(labels)


def reference_cross_entropy(logits, labels, smoothing):
    """Pixel by pixel in float64."""
    labels, weights = np.asarray(labels), np.asarray(WEIGHTS)
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    nll, weight = np.zeros(len(labels)), np.zeros(len(labels))
    for index in np.ndindex(labels.shape):
        if labels[index] == losses.VOID:
            continue
        target = np.full(CLASSES, smoothing / CLASSES)
        target[labels[index]] += 1 - smoothing
        nll[index[0]] -= weights[labels[index]] * (target * log_p[index]).sum()
        weight[index[0]] += weights[labels[index]]
    return nll, weight


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_matches_a_reference(logits, labels, smoothing):
    got = pixel_cross_entropy(logits, labels, WEIGHTS, smoothing)
    for ours, expected in zip(got, reference_cross_entropy(logits, labels, smoothing), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_gradient_is_weight_times_probability_minus_target(logits, labels):
    gradient = jax.jit(jax.grad(lambda x: losses.pixel_cross_entropy(x, labels, WEIGHTS)[0].sum()))(logits)
    valid = labels != losses.VOID
    safe = np.where(valid, labels, 0)
    expected = scipy.special.softmax(np.asarray(logits), axis=-1) - np.eye(CLASSES)[safe]
    expected *= np.where(valid, WEIGHTS[safe], 0)[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_huge_logits_stay_finite(labels):
    logits = jnp.zeros((3, 8, 6, CLASSES)).at[..., 0].set(1e4)
    loss = jax.value_and_grad(lambda x: losses.pixel_cross_entropy(x, labels, WEIGHTS)[0].sum())
    value, gradient = jax.jit(loss)(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def reference_dice(logits, labels):
    foreground = 1 - scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)[..., 0]
    dice = []
    for p, y in zip(foreground, np.asarray(labels), strict=True):
        p, t = p[y != losses.VOID], y[y != losses.VOID] > 0
        dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    return dice


def test_dice_matches_a_reference(logits, labels):
    np.testing.assert_allclose(soft_dice(logits, labels), reference_dice(logits, labels), rtol=1e-5)


def test_dice_runs_from_0_for_perfect_to_1_for_wrong():
    labels = np.zeros((2, 32, 32), np.int32)
    labels[:, 8:24, 8:24] = 2
    right = 50.0 * np.eye(CLASSES)[labels]
    wrong = 50.0 * np.eye(CLASSES)[np.where(labels > 0, 0, 1)]

    def dice(logits):
        return soft_dice(logits.astype(np.float32), labels)

    np.testing.assert_allclose(dice(right), 0, atol=1e-6)
    assert (dice(wrong) > 0.998).all()
    # Which pattern the foreground is taken for does not matter.
    np.testing.assert_allclose(dice(right[..., [0, 2, 1, 3]]), 0, atol=1e-6)


ALL_TERMS = LossConfig(dice_weight=0.7, side_weight=0.4, label_smoothing=0.1)


def total_loss(logits, labels, side=0, config=ALL_TERMS):
    output = SegmenterOutput(logits, (logits * 0.5, logits * 2.0)[:side])
    return losses.combine(losses.segmentation_loss(output, labels, WEIGHTS, config), config)


total_and_gradient = jax.jit(jax.value_and_grad(total_loss), static_argnames="side")


def test_void_pixels_influence_neither_value_nor_gradient(logits, labels):
    changed = np.where((labels == losses.VOID)[..., None], 100 * logits[:, ::-1], logits)
    results = [total_and_gradient(x, labels, side=2) for x in (logits, changed)]
    assert float(results[0][0]) == float(results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not results[0][1][labels == losses.VOID].any()
    assert np.abs(results[0][1][labels != losses.VOID]).min() > 0


def test_a_batch_of_void_pixels_gives_0_and_no_gradient(logits):
    value, gradient = total_and_gradient(logits, np.full((3, 8, 6), losses.VOID, np.uint8), side=2)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_combination_is_the_documented_sum(logits, labels):
    nll, weight = reference_cross_entropy(logits, labels, 0.1)
    side = sum(reference_cross_entropy(logits * factor, labels, 0.1)[0] for factor in (0.5, 2.0))
    expected = (nll + 0.4 * side).sum() / weight.sum() + 0.7 * np.mean(reference_dice(logits, labels))
    assert float(total_and_gradient(logits, labels, side=2)[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(label_smoothing=0.1, pattern_weight=0.3, gap_weight=2.0)])
def test_coarse_side_heads_count_as_if_they_were_repeated(logits, labels, config):
    coarse = (logits[:, :4, :3], 0.5 * logits[:, :2, :2], 2.0 * logits[:, :1, :6])

    def loss(coarse, *, repeated: bool):
        sides = coarse
        if repeated:
            sides = [jnp.repeat(jnp.repeat(x, 8 // x.shape[1], axis=1), 6 // x.shape[2], axis=2) for x in coarse]
        return losses.combine(
            losses.segmentation_loss(SegmenterOutput(logits, tuple(sides)), labels, WEIGHTS, config), config
        )

    of_parts = [jax.jit(jax.value_and_grad(functools.partial(loss, repeated=way)))(coarse) for way in (False, True)]
    assert float(of_parts[0][0]) == pytest.approx(float(of_parts[1][0]), rel=1e-5)
    for gradient, expected in zip(of_parts[0][1], of_parts[1][1], strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_blocks_of_pixels_give_the_loss_of_the_image(logits, labels):
    config = LossConfig(label_smoothing=0.1, pattern_weight=0.3, gap_weight=2.0, dice_weight=0.5)
    blocks = space_to_depth(logits, 2).reshape(3, 4, 3, 4, CLASSES)
    terms = jax.jit(lambda x: losses.segmentation_loss(SegmenterOutput(x), labels, WEIGHTS, config))
    expected, found = terms(logits), terms(blocks)
    for name in ("nll", "weight", "dice"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)


def test_mean_is_over_the_whole_batch_not_over_its_parts(logits, labels):
    """Terms of parts of a batch, put together, give the loss of the batch; means of means do not."""
    parts = ((logits[:2], labels[:2]), (logits[2:], labels[2:]))
    terms = [losses_of(*part, WEIGHTS, ALL_TERMS) for part in parts]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *terms)
    whole = float(total_and_gradient(logits, labels)[0])
    assert float(losses.combine(joined, ALL_TERMS)) == pytest.approx(whole, rel=1e-6)
    naive = np.mean([float(losses.combine(t, ALL_TERMS)) for t in terms])
    assert abs(naive - whole) > 1e-3 * whole


def test_class_weights_scale_the_share_of_their_pixels(logits, labels):
    only = jnp.where(labels == 1, labels, losses.VOID)
    terms = losses_of(logits, only, WEIGHTS * 5, LossConfig())
    plain = losses_of(logits, only, jnp.ones(CLASSES), LossConfig())
    np.testing.assert_allclose(terms.nll, 5 * plain.nll, rtol=1e-6)
    np.testing.assert_allclose(plain.weight, (only == 1).sum((1, 2)))
    assert float(losses.combine(terms, LossConfig())) == pytest.approx(float(losses.combine(plain, LossConfig())))
    assert not np.any(plain.dice)


def test_gaps_are_the_background_between_near_cells():
    labels = np.zeros((1, 40, 40), np.uint8)
    labels[0, 5:35, 5:15], labels[0, 5:35, 23:35] = 2, 1
    expected = np.zeros(labels.shape)
    expected[0, 5:35, 15:23] = 1
    np.testing.assert_array_equal(losses.gaps(jnp.asarray(labels), 8), expected)
    assert not losses.gaps(jnp.asarray(labels), 7).any()


def test_patterns_of_weight_zero_leave_cells_against_background(logits, labels):
    terms = losses_of(logits, labels, WEIGHTS, LossConfig(pattern_weight=0.0))
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    cell = scipy.special.logsumexp(log_p[..., 1:], axis=-1)
    valid, safe = labels != losses.VOID, np.where(labels != losses.VOID, labels, 0)
    nll = -np.where(safe > 0, cell, log_p[..., 0]) * np.where(valid, np.asarray(WEIGHTS)[safe], 0)
    np.testing.assert_allclose(terms.nll, nll.sum((1, 2)), rtol=1e-5)


def test_the_weight_of_gaps_counts_in_loss_and_weight():
    labels = np.zeros((1, 8, 12), np.uint8)
    labels[0, :, :4], labels[0, :, 8:] = 1, 1
    output = SegmenterOutput(jnp.zeros((1, 8, 12, CLASSES)))
    terms = losses.segmentation_loss(
        output, jnp.asarray(labels), jnp.ones(CLASSES), LossConfig(gap_weight=3.0, gap_width=4)
    )
    assert float(terms.weight[0]) == 8 * (8 + 4 * 4)
    assert float(terms.nll[0]) == pytest.approx(8 * (8 + 4 * 4) * np.log(CLASSES), rel=1e-5)


def test_a_cell_that_may_have_several_patterns_counts_by_the_sum_of_their_probabilities():
    logits = jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.5]])
    possible = jnp.array([[True, False, True], [False, True, False]])
    probabilities = jax.nn.softmax(logits)
    config = LossConfig(label_smoothing=0.1)
    expected = -0.9 * jnp.log(jnp.array([probabilities[0, 0] + probabilities[0, 2], probabilities[1, 1]]))
    expected -= 0.1 * jnp.log(probabilities).mean(axis=1)

    def loss(values, labels):
        return losses.cell_loss(ClassifierOutput(values), labels, jnp.zeros((2, 1, 1, 1)), jnp.ones(3), config)

    assert loss(logits, possible) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert jnp.isfinite(jax.grad(loss)(logits * 1e4, possible)).all()
    one_each = jnp.array([2, 1])
    of_sets = float(loss(logits, jax.nn.one_hot(one_each, 3) > 0))
    assert float(loss(logits, one_each)) == pytest.approx(of_sets, rel=1e-6)
