"""Prepares fields for the page: images with stretched contrast, and layers with annotation, prediction and errors."""

import base64
import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from hep2jax.grey_levels import percentiles
from hep2jax.metrics.pixels import VOID
from hep2jax.report.markup import Html, element
from hep2jax.report.palette import FALSE_NEGATIVE, FALSE_POSITIVE, WRONG_PATTERN, bgr, pattern_colour

FILL_ALPHA = 105
ERROR_ALPHA = 225
JPEG_QUALITY = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryItem:
    """One field (image) of a specimen with its annotation and prediction."""

    specimen_id: str
    field: int
    """0-based number of the image within its specimen."""
    truth: str
    """Annotated pattern of the specimen."""
    prediction: str
    """Predicted pattern."""
    intensity: str
    """`positive` or `intermediate`."""
    dice: float | None
    """Foreground Dice of this field; None if it is undefined."""
    votes: dict[str, float]
    """Pattern → share of the predicted foreground pixels."""
    image: np.ndarray
    """Grey image at native resolution, uint8 [height, width]."""
    truth_classes: np.ndarray
    """uint8 [height, width]: 0 background, 1+i pattern i, 255 void."""
    predicted_classes: np.ndarray
    """uint8 [height, width]: 0 background, 1+i pattern i."""

    @property
    def wrong(self) -> bool:
        """Whether the prediction differs from the annotation."""
        return self.truth != self.prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Display:
    """A field that was shrunk for the page, with the prefix of its element ids."""

    item: GalleryItem
    key: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.image.shape
        return width, height


def display(item: GalleryItem, width: int, key: str) -> Display:
    """Shrink a field to at most `width` pixels: the image by area averaging, the classes by nearest neighbours.

    Args:
        item: the field.
        width: maximum width in pixels; narrower fields keep their size.
        key: prefix of element ids: letters, digits and hyphens, unique on the page.
    """
    height, native_width = item.image.shape
    scale = min(1.0, width / native_width)
    size = max(1, round(native_width * scale)), max(1, round(height * scale))
    return Display(
        item=item,
        key=key,
        image=stretch_contrast(cv2.resize(item.image, size, interpolation=cv2.INTER_AREA)),
        truth=cv2.resize(item.truth_classes, size, interpolation=cv2.INTER_NEAREST_EXACT),
        predicted=cv2.resize(item.predicted_classes, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def stretch_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch grey values from the 1st to the 99.8th percentile to 0..255, with a mild gamma to show dim cells.

    Args:
        image: uint8 [height, width].

    Returns:
        uint8 of the same shape; a constant image becomes black.
    """
    low, high = percentiles(image, (1.0, 99.8))
    unit = np.clip((np.arange(256, dtype=np.float32) - low) / max(high - low, 1.0), 0.0, 1.0)
    return cv2.LUT(image, np.round(255.0 * unit**0.8).astype(np.uint8))


def image_layer(field: Display) -> Html:
    """The embedded grey image; other drawings refer to it by `reuse(field, "image")`."""
    return _embedded(field, "image", jpeg(field.image))


def prediction_layer(field: Display) -> Html:
    """The embedded layer of the predicted patterns in translucent colours."""
    return _embedded(field, "read", png(prediction_overlay(field.predicted)))


def error_layer(field: Display) -> Html:
    """The embedded layer of the errors."""
    return _embedded(field, "errors", png(error_overlay(field.truth, field.predicted)))


def reuse(field: Display, layer: str) -> Html:
    """A reference to a layer that is embedded elsewhere on the page: `image`, `read` or `errors`."""
    return element("use", href=f"#{field.key}-{layer}")


def _embedded(field: Display, layer: str, source: str) -> Html:
    width, height = field.size
    return element("image", id=f"{field.key}-{layer}", href=source, width=width, height=height)


def truth_contours(classes: np.ndarray) -> list[Html]:
    """Outlines of the annotated regions as SVG paths, one for each class; void pixels have the CSS class `void`."""
    paths = []
    for value in np.unique(classes[classes > 0]).tolist():
        style = {"class_": "void"} if value == VOID else {"stroke": pattern_colour(value - 1)}
        paths.append(element("path", d=_outline(classes == value), **style))
    return paths


def _outline(mask: np.ndarray) -> str:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = (cv2.approxPolyDP(contour, 0.6, True)[:, 0].tolist() for contour in contours)
    return "".join("M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in points) + "Z" for points in polygons)


def prediction_overlay(classes: np.ndarray) -> np.ndarray:
    """Predicted classes in translucent colours with opaque outlines, uint8 BGRA [height, width, 4]."""
    overlay = np.zeros((*classes.shape, 4), np.uint8)
    for value in np.unique(classes[classes > 0]).tolist():
        overlay[classes == value] = (*bgr(pattern_colour(value - 1)), FILL_ALPHA)
    eroded = cv2.erode(classes, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    overlay[(classes != eroded) & (classes > 0), 3] = 255
    return overlay


def error_overlay(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Differences of truth and prediction, one colour for each kind of error, uint8 BGRA [height, width, 4].

    Void pixels stay transparent, because metrics do not count them.
    """
    valid = truth != VOID
    kinds = (
        (FALSE_POSITIVE, (truth == 0) & (predicted > 0)),
        (FALSE_NEGATIVE, (truth > 0) & (predicted == 0)),
        (WRONG_PATTERN, (truth > 0) & (predicted > 0) & (truth != predicted)),
    )
    overlay = np.zeros((*truth.shape, 4), np.uint8)
    for colour, mask in kinds:
        overlay[mask & valid] = (*bgr(colour), ERROR_ALPHA)
    return overlay


def jpeg(image: np.ndarray) -> str:
    """Encode an image, uint8 grey [height, width] or BGR [height, width, 3], as a JPEG data URI."""
    return _data_uri(image, ".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def png(image: np.ndarray) -> str:
    """Encode an image, uint8 grey [height, width] or BGRA [height, width, 4], as a PNG data URI."""
    return _data_uri(image, ".png", "image/png", (cv2.IMWRITE_PNG_COMPRESSION, 6))


def _data_uri(image: np.ndarray, suffix: str, mime: str, options: Sequence[int]) -> str:
    encoded = cv2.imencode(suffix, image, options)[1]
    return f"data:{mime};base64,{base64.b64encode(encoded.tobytes()).decode()}"
