# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""Losses of pixels, of cells and of images.

The losses of pixels give one value per example and do not reduce over the batch, so that the caller decides how to
average.

Everything is float32. A pixel is void if its label is 255, or any other number that is not a class. Void pixels have
no influence on any value or gradient.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from hep2jax.config import LossConfig
from hep2jax.metrics.pixels import VOID
from hep2jax.models.classifier import ClassifierOutput
from hep2jax.models.joint import JointOutput
from hep2jax.models.segmenter import SegmenterOutput
from hep2jax.ops import space_to_depth


class LossTerms(NamedTuple):
    """Sums over the pixels of each example; `combine` turns them into the scalar loss.

    Attributes:
        nll: class-weighted negative log-likelihood of the main head, summed over pixels.
        side_nll: the same, summed over the side heads as well; 0 without side heads.
        weight: sum of the weights of the pixels that are not void, one per example and the same for every head.
        dice: soft foreground Dice loss, in [0, 1].
    """

    nll: Float[Array, " batch"]
    side_nll: Float[Array, " batch"]
    weight: Float[Array, " batch"]
    dice: Float[Array, " batch"]


def segmentation_loss(
    output: SegmenterOutput,
    labels: Integer[Array, "batch height width"],
    class_weights: Float[Array, " output"],
    config: LossConfig,
) -> LossTerms:
    """Terms of the loss for each example of a batch.

    Args:
        output: what a network returned, see `SegmenterOutput`.
        labels: any integer type; 0 is background, 1 + i is pattern i, 255 is void.
        class_weights: float32 [K], positive.
        config: smoothing, the weights of patterns and gaps, and whether Dice is needed (it is computed only if its
            weight is not 0).
    """
    boost = 1.0 + config.gap_weight * gaps(labels, config.gap_width) if config.gap_weight else None
    side = [_coarse_nll(logits, labels, class_weights, boost, config) for logits in output.side_logits]
    labels = _as_pixels_of(output.logits, labels)
    boost = None if boost is None else _as_pixels_of(output.logits, boost)
    nll, weight = _weighted_nll(output.logits, labels, class_weights, boost, config)
    dice = soft_dice(output.logits, labels) if config.dice_weight else jnp.zeros_like(nll)
    return LossTerms(nll, sum(side, jnp.zeros_like(nll)), weight, dice)


def _as_pixels_of(
    logits: Float[Array, "batch rows columns *pixel output"], values: Shaped[Array, "batch height width"]
) -> Shaped[Array, "batch rows columns *pixel"]:
    """Values of pixels in the order of the logits, which may be those of blocks of pixels."""
    if logits.ndim == 4:
        return values
    return space_to_depth(values[..., None], values.shape[1] // logits.shape[1])


def combine(terms: LossTerms, config: LossConfig) -> Float[Array, ""]:
    """The scalar to minimise: means over the pixels and examples of the whole (global, sharded) batch.

    `sum(nll) / sum(weight) + side_weight * sum(side_nll) / sum(weight) + dice_weight * mean(dice)`: every pixel counts
    the same, whichever example and device holds it. A batch that has only void pixels gives 0.
    """
    weight = terms.weight.sum()
    nll = (terms.nll + config.side_weight * terms.side_nll).sum()
    return nll / jnp.where(weight > 0, weight, 1.0) + config.dice_weight * terms.dice.mean()


def _weighted_nll(
    logits: Array, labels: Array, class_weights: Array, boost: Array | None, config: LossConfig
) -> tuple[Array, Array]:
    """`pixel_cross_entropy` with the weights of the configuration.

    The cross-entropy of a cell pixel is that of cell against background plus that of its pattern among the patterns,
    so a weight w of the patterns is w times the whole plus 1 - w times the first.
    """
    share, smoothing = config.pattern_weight, config.label_smoothing
    nll, weight = pixel_cross_entropy(logits, labels, class_weights, smoothing, boost)
    if share == 1.0:
        return nll, weight
    cell = jax.nn.logsumexp(logits[..., 1:].astype(jnp.float32), axis=-1)
    two = jnp.stack([logits[..., 0].astype(jnp.float32), cell], axis=-1)
    weights = pixel_weights(labels, class_weights, boost)
    two_labels = jnp.where(weights > 0, labels > 0, VOID)
    of_cells = jnp.asarray(_pixel_nll(two, two_labels, smoothing)) * weights
    return share * nll + (1.0 - share) * _over_pixels(of_cells), weight


def _coarse_nll(
    logits: Float[Array, "batch rows columns output"],
    labels: Integer[Array, "batch height width"],
    class_weights: Array,
    boost: Array | None,
    config: LossConfig,
) -> Float[Array, " batch"]:
    """What `_weighted_nll` would give for these logits, repeated to full size, without their being repeated.

    The cross-entropies of pixels that share logits depend only on how much the pixels of each class weigh together.
    """
    masses = _class_masses(labels, class_weights, boost, logits.shape[1:3])
    classes = [logits[..., index] for index in range(logits.shape[-1])]
    share, smoothing = config.pattern_weight, config.label_smoothing
    nll = _mass_nll(classes, masses, smoothing)
    if share == 1.0:
        return nll
    cell = jax.nn.logsumexp(logits[..., 1:], axis=-1)
    of_two = [masses[0], sum(masses[1:], jnp.zeros(()))]
    return share * nll + (1.0 - share) * _mass_nll([classes[0], cell], of_two, smoothing)


def _class_masses(
    labels: Array, class_weights: Array, boost: Array | None, shape: tuple[int, ...]
) -> list[Float[Array, "batch rows columns"]]:
    """For each class the weights of `pixel_weights`, summed over its pixels in each of `shape` rectangles."""
    down, across = (
        np.repeat(np.eye(count, dtype=np.float32), size // count, axis=1)
        for count, size in zip(shape, labels.shape[1:], strict=True)
    )
    pixels = (labels[:, None].astype(jnp.int32) == jnp.arange(len(class_weights))[:, None, None]).astype(jnp.float32)
    if boost is not None:
        pixels *= boost[:, None]
    # Products with zeros and ones, which are faster than sums over axes that are split. Zeros and ones are exact in
    # bfloat16, in which a TPU multiplies, and weights of gaps are not.
    precision = None if boost is None else jax.lax.Precision.HIGHEST
    sums = jnp.einsum("hy,bkyx,wx->bkhw", down, pixels, across, precision=precision)
    return [sums[:, index] * weight for index, weight in enumerate(class_weights)]


def _mass_nll(logits: Sequence[Array], masses: Sequence[Array], smoothing: float) -> Float[Array, " batch"]:
    """Cross-entropies with smoothed labels, weighted by the mass of each class, summed over each example.

    Classes are handled one by one, as in `_pixel_nll`.
    """
    zero = jnp.zeros(())
    mass = sum(masses, zero)
    spread = mass * (smoothing / len(masses))
    hit = sum((((1.0 - smoothing) * own + spread) * x for own, x in zip(masses, logits, strict=True)), zero)
    return (mass * _normaliser(logits) - hit).sum((1, 2))


def _normaliser(classes: Sequence[Array]) -> Array:
    """The logarithm of the sum of exponentials, from one array a class."""
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, classes))
    return top + jnp.log(sum((jnp.exp(logit - top) for logit in classes), jnp.zeros(())))


def gaps(labels: Integer[Array, "batch height width"], width: int) -> Float[Array, "batch height width"]:
    """1 on background in gaps between cells that are at most `width` pixels wide, else 0: a morphological closing."""
    cells = ((labels > 0) & (labels != VOID)).astype(jnp.float32)
    before, after = width // 2, width - width // 2
    closed = -_running_maximum(-_running_maximum(cells, before, after), after, before)
    return jnp.where(labels == 0, closed, 0.0)


def _running_maximum(values: Array, before: int, after: int) -> Array:
    """The maximum over each pixel, the `before` rows and columns before it and the `after` ones after it."""
    for axis in (1, 2):
        window, padding = [1, 1, 1], [(0, 0)] * 3
        window[axis], padding[axis] = before + 1 + after, (before, after)
        values = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, (1, 1, 1), padding)
    return values


def pixel_cross_entropy(
    logits: Float[Array, "batch *pixel output"],
    labels: Integer[Array, "batch ..."],
    class_weights: Float[Array, " output"],
    label_smoothing: float = 0.0,
    boost: Float[Array, "batch ..."] | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Softmax cross-entropy, each pixel weighted by the weight of its class, times its `boost`.

    Args:
        logits: float32 [B, ..., K].
        labels: as in `segmentation_loss`, [B, ...].
        class_weights: float32 [K].
        label_smoothing: share s of the target that is spread evenly over the K classes (Szegedy et al. 2016).
        boost: factor for the weight of each pixel; None: 1.

    Returns:
        The sum over the pixels of weight times loss, and the sum of the weights, float32 [B] each. The weighted mean
        is the quotient of the two after each has been summed over the examples.
    """
    weights = pixel_weights(labels, class_weights, boost)
    nll = jnp.asarray(_pixel_nll(logits.astype(jnp.float32), labels, label_smoothing))
    return _over_pixels(nll * weights), _over_pixels(weights)


def _over_pixels(values: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return values.sum(tuple(range(1, values.ndim)))


def pixel_weights(labels: Array, class_weights: Array, boost: Array | None = None) -> Array:
    """The weight of each pixel in `pixel_cross_entropy`, float32; 0 for void pixels."""
    weighted = (jnp.where(labels == index, weight, 0.0) for index, weight in enumerate(class_weights))
    weights = sum(weighted, jnp.zeros(labels.shape))
    return weights if boost is None else weights * boost


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pixel_nll(
    logits: Float[Array, "batch *pixel output"], labels: Integer[Array, "batch ..."], smoothing: float
) -> Float[Array, "batch ..."]:
    """Cross-entropy of each pixel with its smoothed label; the value of a void pixel is arbitrary.

    The classes are handled one by one instead of as an axis to reduce: a compiler then reads the logits once and writes
    one number per pixel. By the TPU compiler's estimate (v5e, 128 images of 256 x 256, nine classes, including the
    heads) `fcn` spends 2.9 ms on it instead of 4.7 ms with reductions. On CPU, with 16 x 128 x 128 x 7, it takes
    8.3 ms; reductions take 9.2 ms, or 7.7 ms with this gradient.
    """
    return _pixel_nll_forward(logits, labels, smoothing)[0]


def _pixel_nll_forward(logits: Array, labels: Array, smoothing: float) -> tuple[Array, tuple[Array, ...]]:
    classes = [logits[..., index] for index in range(logits.shape[-1])]
    normaliser = _normaliser(classes)
    hit = sum((jnp.where(labels == index, logit, 0.0) for index, logit in enumerate(classes)), jnp.zeros(()))
    nll = normaliser - (1.0 - smoothing) * hit
    if smoothing:
        nll -= smoothing / len(classes) * sum(classes)
    return nll, (logits, labels, normaliser)


def _pixel_nll_backward(smoothing: float, residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, None]:
    logits, labels, normaliser = residuals
    one_hot = _one_hot(labels, logits.shape[-1])
    target = jnp.where(one_hot, 1.0 - smoothing, 0.0) + smoothing / logits.shape[-1]
    return (jnp.exp(logits - normaliser[..., None]) - target) * cotangent[..., None], None


_pixel_nll.defvjp(_pixel_nll_forward, _pixel_nll_backward)


def soft_dice(
    logits: Float[Array, "batch *pixel output"], labels: Integer[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """1 - soft Dice of the foreground, whose probability is 1 - p(background) (Milletari et al. 2016).

    One pixel is added to numerator and denominator, so that the loss is defined for a crop without foreground (or
    without any valid pixel): if nothing is predicted there, it is 0.

    Returns:
        float32 [B] in [0, 1].
    """
    valid = labels < logits.shape[-1]
    foreground = jnp.where(valid, 1.0 - jax.nn.softmax(logits.astype(jnp.float32))[..., 0], 0.0)
    truth = (valid & (labels > 0)).astype(jnp.float32)
    overlap, total = _over_pixels(foreground * truth), _over_pixels(foreground + truth)
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def cell_loss(
    output: ClassifierOutput,
    labels: Int[Array, " batch"] | Bool[Array, "batch pattern"],
    target: Float[Array, "image height width channel"],
    class_weights: Float[Array, " pattern"],
    config: LossConfig,
) -> Float[Array, ""]:
    """The scalar to minimise for single cells: cross-entropy, side heads and reconstruction.

    `(sum(nll) + side_weight * sum(side_nll)) / sum(weight) + reconstruction_weight * mean((reconstruction - target)^2)`
    over the whole (global, sharded) batch.

    Args:
        output: what a classifier returned, float32 logits [B, K].
        labels: pattern of each cell, 0..K-1; or which patterns it may have, of which only the sum of the probabilities
            counts then.
        target: the image to reconstruct (`Classifier.target`); not used if the network reconstructs nothing.
        class_weights: float32 [K], positive.
        config: weights and smoothing.
    """
    possible = labels if labels.ndim == 2 else _one_hot(labels, output.logits.shape[-1])
    weight = jnp.where(possible, class_weights, 0.0).sum(-1) / possible.sum(-1)
    heads = [(output.logits, 1.0), *((logits, config.side_weight) for logits in output.side_logits)]
    nll = sum((share * _set_nll(logits, possible, config.label_smoothing) for logits, share in heads), jnp.zeros(()))
    loss = (nll * weight).sum() / weight.sum()
    if output.reconstruction is None:
        return loss
    error = jnp.square(output.reconstruction - target.astype(jnp.float32)).mean()
    return loss + config.reconstruction_weight * error


def _set_nll(
    logits: Float[Array, "batch pattern"], possible: Bool[Array, "batch pattern"], smoothing: float
) -> Float[Array, " batch"]:
    """Negative logarithm of the summed probability of the possible patterns; cross-entropy if that is one pattern."""
    log_probabilities = jax.nn.log_softmax(logits)
    among = jax.nn.logsumexp(log_probabilities, axis=-1, where=possible)
    return -(1.0 - smoothing) * among - smoothing * log_probabilities.mean(-1)


def label_loss(
    output: ClassifierOutput,
    labels: Float[Array, "batch pattern"],
    class_weights: Float[Array, " pattern"],
    config: LossConfig,
) -> Float[Array, ""]:
    """The scalar to minimise where an image may have several patterns, or none: binary cross-entropy of each pattern.

    `mean(-w t log p - (1 - t) log(1 - p))` over the patterns and the whole (global, sharded) batch, where p is the
    sigmoid of the logit. Class weights apply to the presence of a pattern; its absence has weight 1. A pattern of
    weight 0 is learnt as absent.

    Args:
        output: float32 logits [B, K].
        labels: 1 for each pattern that the image has, 0 for the others.
        class_weights: float32 [K], not negative.
        config: smoothing s of the targets, t = (1 - s) * label + s / 2.
    """
    target = (1.0 - config.label_smoothing) * labels + config.label_smoothing / 2
    present, absent = jax.nn.softplus(-output.logits), jax.nn.softplus(output.logits)
    return (class_weights * target * present + (1.0 - target) * absent).mean()


def joint_loss(
    output: JointOutput,
    labels: Integer[Array, "batch height width"],
    patterns: Int[Array, " batch"],
    grades: Int[Array, " batch"],
    class_weights: Float[Array, " pattern"],
    config: LossConfig,
) -> Float[Array, ""]:
    """The scalar to minimise for `joint`: the mean of the Dice loss and the cross-entropies of pattern and intensity.

    Terms and weights are those of the public code of Percannella et al. (ICPR 2022).

    Args:
        output: float32 logits.
        labels: 0 is background, 1 + i is pattern i, 255 is void.
        patterns: pattern of the specimen that each patch comes from, 0..K-1.
        grades: 1 is the higher grade, 0 the lower; -1 is unknown and has no influence.
        class_weights: float32 [K], positive.
        config: label smoothing of the patterns.
    """
    pattern_loss = cell_loss(ClassifierOutput(output.pattern), patterns, output.mask, class_weights, config)
    known = (grades >= 0).astype(jnp.float32)
    intensity_nll = optax.sigmoid_binary_cross_entropy(output.intensity, (grades > 0).astype(jnp.float32))
    intensity_loss = (intensity_nll * known).sum() / jnp.maximum(known.sum(), 1.0)
    return (two_class_dice(output.mask[..., 0], labels).mean() + pattern_loss + intensity_loss) / 3


def two_class_dice(
    logits: Float[Array, "batch height width"], labels: Integer[Array, "batch height width"]
) -> Float[Array, " batch"]:
    """1 - the mean of the soft Dice of cells and of background, each with one pixel added as in `soft_dice`.

    Args:
        logits: logit of each pixel being cell.
        labels: 0 is background, 255 is void, anything else is cell.

    Returns:
        float32 [B] in [0, 1].
    """
    valid = labels != VOID
    probability = jax.nn.sigmoid(logits.astype(jnp.float32))
    dice: list[Array] = []
    for predicted, truth in ((probability, labels > 0), (1.0 - probability, labels == 0)):
        predicted, truth = jnp.where(valid, predicted, 0.0), (valid & truth).astype(jnp.float32)
        overlap, total = (predicted * truth).sum((1, 2)), (predicted + truth).sum((1, 2))
        dice.append((2.0 * overlap + 1.0) / (total + 1.0))
    return 1.0 - (dice[0] + dice[1]) / 2


def _one_hot(labels: Array, num_classes: int) -> Array:
    # A comparison instead of a gather of log-probabilities: gathers and their scatter gradients are slow on TPU.
    return labels[..., None].astype(jnp.int32) == jnp.arange(num_classes)
