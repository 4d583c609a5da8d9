"""Objects in masks: connected regions, and how well predicted objects match the annotated ones."""

import cv2
import numpy as np
from jaxtyping import Float, Int

from hep2jax.metrics.pixels import Labels, Mask, check_same_shape


def connected_objects(mask: Mask, min_pixels: int = 1, *, connectivity: int = 8) -> Labels:
    """Label the connected regions of a mask 1, 2, ... in scan order; regions smaller than `min_pixels` become 0.

    Args:
        mask: bool [height, width].
        min_pixels: area of the smallest region that is kept, in pixels.
        connectivity: 8 (diagonal neighbours touch) or 4.

    Returns:
        int32 [height, width], 0 = no object.
    """
    count, labels = cv2.connectedComponents(
        np.ascontiguousarray(mask, np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    labels = np.asarray(labels, np.int32)
    if min_pixels <= 1:
        return labels
    # OpenCV's own statistics of the regions take longer than their labels.
    kept = np.bincount(labels.ravel(), minlength=count) >= min_pixels
    kept[0] = False
    return labels if kept[1:].all() else np.take(np.where(kept, np.cumsum(kept), 0).astype(np.int32), labels)


def seg_score(prediction: Labels, reference: Labels, valid: Mask | None = None) -> Float[np.ndarray, " objects"]:
    """Jaccard index of every reference object: the terms of the Cell Tracking Challenge's SEG.

    A reference object R is matched by the predicted object S that covers more than half of it, |R∩S| > |R|/2, so there
    is at most one match. Its score is |R∩S| / |R∪S|, or 0 without a match. SEG is the mean over reference objects
    (definition: Maška et al., Bioinformatics 30, 2014). Predicted objects that match nothing do not lower SEG, so it
    should be reported together with JA.

    Args:
        prediction: predicted objects, int [height, width], 0 = none; other labels are arbitrary positive
            numbers.
        reference: reference objects, in the same form.
        valid: bool [height, width]; void pixels belong to no object, and a reference object without a valid pixel does
            not count. None means that all pixels are valid.

    Returns:
        float64, one value per reference object in order of its label; empty where there is no object.

    Raises:
        ValueError: shapes differ or a label is negative.
    """
    check_same_shape(prediction=prediction, reference=reference, **({} if valid is None else {"valid": valid}))
    reference_flat, prediction_flat = _in_scope(reference, valid), _in_scope(prediction, valid)
    reference_area, prediction_area = np.bincount(reference_flat), np.bincount(prediction_flat)
    matched, partner, overlap = _majority_matches(reference_flat, prediction_flat, reference_area)
    jaccard = np.zeros(reference_area.size)
    union = reference_area[matched] + prediction_area[partner] - overlap
    jaccard[matched] = overlap / union
    return jaccard[1:][reference_area[1:] > 0]


def _in_scope(labels: Labels, valid: Mask | None) -> Int[np.ndarray, " pixels"]:
    flat = (labels if valid is None else labels[valid]).reshape(-1).astype(np.int64)
    if flat.size and flat.min() < 0:
        raise ValueError(f"object labels must not be negative, found {flat.min()}")
    return flat


def _majority_matches(
    reference: Int[np.ndarray, " pixels"],
    prediction: Int[np.ndarray, " pixels"],
    reference_area: Int[np.ndarray, " labels"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(reference label, predicted label, common pixels) of the pairs that share more than half of the reference."""
    both = (reference > 0) & (prediction > 0)
    stride = prediction.max(initial=0) + 1
    # Only pairs that occur are listed: a full table would be huge for a poor mask of thousands of specks.
    pairs, overlap = np.unique(reference[both] * stride + prediction[both], return_counts=True)
    label, partner = pairs // stride, pairs % stride
    majority = 2 * overlap > reference_area[label]
    return label[majority], partner[majority], overlap[majority]
