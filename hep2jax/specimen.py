"""From the pixels of a specimen's fields to one pattern for the specimen: the majority of its foreground."""

import numpy as np
from jaxtyping import Bool, Float, Int


def decide(
    probabilities: Float[np.ndarray, "height width classes"], threshold: float = 0.5
) -> tuple[Bool[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Decide each pixel: is it cell, and if so which pattern.

    Args:
        probabilities: float [height, width, K+1], summing to 1; channel 0 = background, 1+i = pattern i.

    Returns:
        foreground: bool [height, width], where 1 - p(background) > `threshold`. A pixel that is torn between patterns
            is still cell, which an argmax over all channels would miss.
        pattern: int32 [height, width] in 0..K-1, the most probable pattern (the first of equals); defined on
            every pixel, meaningful on the foreground.
    """
    if probabilities.ndim != 3 or probabilities.shape[-1] < 2:
        raise ValueError(f"expected probabilities [height, width, 1 + patterns], got {probabilities.shape}")
    foreground = 1 - probabilities[..., 0] > threshold
    return foreground, probabilities[..., 1:].argmax(axis=-1).astype(np.int32)


def pattern_counts(
    foreground: Bool[np.ndarray, "height width"], pattern: Int[np.ndarray, "height width"], num_patterns: int
) -> Int[np.ndarray, " patterns"]:
    """Foreground pixels of each pattern in one field, int64 [K]: one row of what `vote` takes."""
    return np.bincount(pattern[foreground], minlength=num_patterns)


def vote(
    counts: Int[np.ndarray, "fields patterns"],
    mean_probability: Float[np.ndarray, " patterns"] | None = None,
) -> int | None:
    """The specimen's pattern: that of most foreground pixels, all fields pooled.

    Pooling gives each field the weight of its foreground, as in Li, Shen and Yu, IEEE TMI 36 (2017), FCRN
    (our
    reading: a majority over the foreground pixels of a specimen's images). Ties go to the first of the tied
    patterns in class order.

    Args:
        counts: foreground pixels, int [fields, K]; a single field may come as [K].
        mean_probability: float [K], each pattern's probability averaged over the specimen, the fallback where
            no pixel is foreground.

    Returns:
        The pattern's index, or None: no cells were found and there is no fallback. None is counted as an
        error by `metrics.classification_report`; it is no index, -1 would silently name the last pattern.
    """
    pooled = _pool(counts)
    if pooled.any():
        return int(pooled.argmax())
    return None if mean_probability is None else int(np.argmax(mean_probability))


def prevalent(counts: Int[np.ndarray, " patterns"], mean_probability: Float[np.ndarray, " patterns"]) -> int:
    """The pattern of most of a specimen's cells, as in Cascio, Taormina, Raso, Appl. Sci. 9 (2019).

    Ties go to the tied pattern of the highest mean probability (the paper names no rule: our reading).

    Args:
        counts: cells read as each pattern, int [K].
        mean_probability: float [K], averaged over the cells.
    """
    tied = counts == counts.max()
    return int(np.where(tied, mean_probability, -1.0).argmax())


def vote_shares(counts: Int[np.ndarray, "fields patterns"]) -> Float[np.ndarray, " patterns"]:
    """Share of the pooled foreground that voted for each pattern, float64 [K]; zeros where there is none."""
    pooled = _pool(counts)
    return pooled / max(int(pooled.sum()), 1)


def _pool(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim not in (1, 2) or not counts.shape[-1] or (counts < 0).any():
        raise ValueError(f"expected pixel counts [fields, patterns], none negative, got shape {counts.shape}")
    return counts.reshape(-1, counts.shape[-1]).sum(axis=0)
