"""The words of the page: what each figure is called and means, and how patterns are named and coloured."""

from hep2jax.report.markup import Html, element
from hep2jax.report.palette import pattern_colour
from tfds_builders import icap

DEFINITIONS = {
    "mca": (
        "MCA",
        "Mean class accuracy: the share read correctly within each pattern, averaged over the patterns, so that a "
        "rare pattern weighs as much as a common one.",
    ),
    "aca": ("ACA", "Average classification accuracy: the share of all that were read correctly."),
    "mAP": (
        "mAP",
        "Mean average precision: for each pattern the precision over the images above a threshold, averaged over the "
        "thresholds at which an image of the pattern is found; then averaged over the patterns.",
    ),
    "f1_macro": (
        "macro F1",
        "2·TP / (2·TP + FP + FN) of each pattern, an image with it found or not, averaged over the patterns.",
    ),
    "f1_micro": ("micro F1", "2·TP / (2·TP + FP + FN) over all images and patterns together."),
    "exact_match": ("exact match", "The share of images of which every pattern was found and no other."),
    "Dice": (
        "Dice",
        "2·TP / (2·TP + FP + FN): how well predicted and annotated foreground cover each other; 1 is a perfect match.",
    ),
    "JA": ("JA", "Jaccard index, TP / (TP + FP + FN): the foreground both agree on over all that either marks."),
    "SE": ("SE", "Sensitivity, TP / (TP + FN): the share of annotated cell pixels that were found."),
    "SP": ("SP", "Specificity, TN / (TN + FP): the share of background pixels left as background."),
    "AC": (
        "AC",
        "Pixel accuracy, (TP + TN) / all: the share of pixels put on the right side, cell or background.",
    ),
    "SEG": (
        "SEG",
        "Object Jaccard of the Cell Tracking Challenge: every annotated object scores its intersection over union "
        "with the predicted object that covers more than half of it, or 0 if none does; the mean over the objects, "
        "which are the connected regions of the foreground.",
    ),
    "SEG_instances": (
        "SEG, single cells",
        "As SEG, but every annotated cell is an object of its own, even where cells touch.",
    ),
    "Dice_mean_per_image": (
        "Dice, mean of images",
        "Dice of each image by itself, averaged: small or sparse images weigh as much as crowded ones.",
    ),
    "mean_class_iou": (
        "mean pattern IoU",
        "Intersection over union of each pattern's pixels, background errors included, averaged over the patterns.",
    ),
    "pattern_accuracy": (
        "pattern of pixels",
        "Of the pixels that are cell in truth and prediction, the share given the right pattern.",
    ),
}
"""Name in `metrics.json` → what the page calls it and one sentence that defines it."""


def term(key: str) -> Html:
    """A figure's name, its definition on hover; an unknown key as it stands."""
    name, definition = DEFINITIONS.get(key, (key, ""))
    return element("abbr", name, title=definition) if definition else element("span", name)


def name_of(key: str) -> str:
    """What the page calls a figure."""
    return DEFINITIONS.get(key, (key, ""))[0]


def definition_of(key: str) -> str:
    """The sentence that defines a figure, empty for an unknown key."""
    return DEFINITIONS.get(key, ("", ""))[1]


def pattern_name(name: str) -> str:
    """A pattern's name as people write it: `fine_speckled` → `fine speckled`."""
    return str(name).replace("_", " ")


def swatch(index: int) -> Html:
    """The small square that carries a pattern's colour."""
    return element("i", class_="swatch", style=f"background:{pattern_colour(index)}")


def pattern_label(index: int, name: str) -> Html:
    """Swatch and name of a pattern; its consensus codes on hover."""
    return element("span", swatch(index), pattern_name(name), title=consensus(name))


def coded_label(index: int, name: str) -> Html:
    """Swatch, name and consensus codes of a pattern."""
    codes = icap.describe(name)
    return element("span", pattern_label(index, name), element("small", codes, class_="codes") if codes else None)


def consensus(name: str) -> str | None:
    """A pattern's consensus codes and what its label leaves open; None for one that has no code."""
    return "ICAP " + "; ".join(filter(None, (icap.describe(name), icap.note(name)))) if icap.codes(name) else None
