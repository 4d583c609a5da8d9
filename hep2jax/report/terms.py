"""Names and definitions of metrics, and names and colours of patterns, as shown on the page."""

from hep2jax.report.markup import Html, element
from hep2jax.report.palette import pattern_colour
from tfds_builders import icap

DEFINITIONS = {
    "mca": (
        "MCA",
        "Mean class accuracy: the share read correctly within each pattern, averaged over the patterns, so that a "
        "rare pattern has the same weight as a common one.",
    ),
    "aca": ("ACA", "Average classification accuracy: the share of all examples that were read correctly."),
    "mAP": (
        "mAP",
        "Mean average precision: for each pattern the precision over the images above a threshold, averaged over the "
        "thresholds at which an image of the pattern is found; then averaged over the patterns.",
    ),
    "f1_macro": (
        "macro F1",
        "2·TP / (2·TP + FP + FN) of each pattern over the images, averaged over the patterns.",
    ),
    "f1_micro": ("micro F1", "2·TP / (2·TP + FP + FN) over all images and patterns together."),
    "exact_match": ("exact match", "The share of images for which exactly the annotated patterns were predicted."),
    "Dice": (
        "Dice",
        "2·TP / (2·TP + FP + FN): the overlap of predicted and annotated foreground; 1 is a perfect match.",
    ),
    "JA": ("JA", "Jaccard index, TP / (TP + FP + FN): the common foreground as a share of the foreground of either."),
    "SE": ("SE", "Sensitivity, TP / (TP + FN): the share of annotated cell pixels that were found."),
    "SP": ("SP", "Specificity, TN / (TN + FP): the share of background pixels that were predicted as background."),
    "AC": (
        "AC",
        "Pixel accuracy, (TP + TN) / all: the share of pixels correctly classified as cell or background.",
    ),
    "SEG": (
        "SEG",
        "Object Jaccard of the Cell Tracking Challenge: every annotated object scores its intersection over union "
        "with the predicted object that covers more than half of it, or 0 if none does; the mean over the objects, "
        "which are the connected regions of the foreground.",
    ),
    "SEG_instances": (
        "SEG, single cells",
        "As SEG, but every annotated cell is a separate object, even if cells touch.",
    ),
    "Dice_mean_per_image": (
        "Dice, mean of images",
        "Mean of the Dice of each image, so that sparse images have the same weight as crowded ones.",
    ),
    "mean_class_iou": (
        "mean pattern IoU",
        "Intersection over union of the pixels of each pattern, with background errors, averaged over the patterns.",
    ),
    "pattern_accuracy": (
        "pattern of pixels",
        "The share of pixels with the correct pattern, among the pixels that are cell in both truth and prediction.",
    ),
}
"""Key in `metrics.json` → displayed name and definition."""


def term(key: str) -> Html:
    """The displayed name of a metric with its definition as a tooltip; an unknown key is shown unchanged."""
    name, definition = DEFINITIONS.get(key, (key, ""))
    return element("abbr", name, title=definition) if definition else element("span", name)


def metric_name(key: str) -> str:
    """The displayed name of a metric."""
    return DEFINITIONS.get(key, (key, ""))[0]


def metric_definition(key: str) -> str:
    """The definition of a metric; empty for an unknown key."""
    return DEFINITIONS.get(key, ("", ""))[1]


def pattern_name(name: str) -> str:
    """The displayed name of a pattern: `fine_speckled` → `fine speckled`."""
    return str(name).replace("_", " ")


def swatch(index: int) -> Html:
    """A small square in the colour of a pattern."""
    return element("i", class_="swatch", style=f"background:{pattern_colour(index)}")


def pattern_label(index: int, name: str) -> Html:
    """Swatch and name of a pattern, with its consensus codes as a tooltip."""
    return element("span", swatch(index), pattern_name(name), title=consensus(name))


def coded_label(index: int, name: str) -> Html:
    """Swatch, name and consensus codes of a pattern."""
    codes = icap.describe(name)
    return element("span", pattern_label(index, name), element("small", codes, class_="codes") if codes else None)


def consensus(name: str) -> str | None:
    """The consensus codes of a pattern and a note on what its label leaves open; None if it has no code."""
    return "ICAP " + "; ".join(filter(None, (icap.describe(name), icap.note(name)))) if icap.codes(name) else None
