"""Draws the picture of the README: the eight synthetic patterns, positive and intermediate, with their masks' outlines.

Usage: python -m scripts.show_synthetic [--output=docs/synthetic.png] [--seed=500]
"""

import argparse
import pathlib

import cv2
import numpy as np

from tfds_builders.hep2_synthetic import generator

CELL = 42
"""Nuclear diameter of the specimens drawn, in pixels."""
SIDE = 212
"""Side of a picture in pixels."""
LABEL_HEIGHT = 24
DISPLAY_GAMMA = 0.8
"""Lifts the dim cytoplasm a little, as viewers of fluorescence images do."""


def stretch(image: np.ndarray) -> np.ndarray:
    """Maps grey levels from the background (5th percentile) to the 99.7th percentile onto 0 to 255."""
    low, high = np.percentile(image, [5, 99.7])
    scaled = np.clip((image - low) / max(high - low, 1), 0, 1)
    return (255 * scaled**DISPLAY_GAMMA).astype(np.uint8)


def outlined(field: generator.Field) -> np.ndarray:
    """Returns a colour picture [h, w, 3] with the outlines of cells, mitotic cells and artefacts in its right half."""
    plain = cv2.cvtColor(stretch(field.image), cv2.COLOR_GRAY2BGR)
    drawn = plain.copy()
    colours = {"cell": (200, 170, 60), "mitotic_cell": (90, 200, 250), "artefact": (90, 90, 240)}
    for item in field.objects:
        mask = (field.instance_mask == item.instance).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, colours[item.kind], 1, cv2.LINE_AA)
    half = plain.shape[1] // 2
    return np.hstack([plain[:, :half], drawn[:, half:]])


def shows_enough(field: generator.Field) -> bool:
    """Whether a field has at least eight objects, and a whole mitotic cell in the half that has no outlines."""
    whole = field.instance_mask.copy()
    whole[2:-2, 2 : SIDE // 2] = 0
    mitotic = [item.instance for item in field.objects if item.kind == "mitotic_cell"]
    return len(field.objects) > 7 and any(not (whole == instance).any() for instance in mitotic)


def choose(seed: int, pattern: str, intensity: str) -> generator.Field:
    """Returns the first field from `seed` on that `shows_enough`, else the last of 400."""
    options = {"height": SIDE, "width": SIDE, "fields": 1, "nuclear_diameter": CELL}
    for number in range(seed, seed + 400):
        field = generator.generate_specimen(number, pattern, intensity, **options)[0]
        if shows_enough(field):
            break
    return field


def tile(seed: int, pattern: str, intensity: str) -> np.ndarray:
    """Draws one labelled picture."""
    picture = outlined(choose(seed, pattern, intensity))
    picture = cv2.copyMakeBorder(picture, LABEL_HEIGHT, 4, 4, 4, cv2.BORDER_CONSTANT, value=(24, 24, 24))
    text = f"{pattern.replace('_', ' ')}, {intensity}"
    cv2.putText(picture, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return picture


def contact_sheet(seed: int) -> np.ndarray:
    """Draws all patterns in four columns; each pattern's positive specimen stands above its intermediate one."""
    rows = []
    for first in range(0, len(generator.PATTERNS), 4):
        for intensity in reversed(generator.INTENSITIES):
            patterns = generator.PATTERNS[first : first + 4]
            rows.append(np.hstack([tile(seed, pattern, intensity) for pattern in patterns]))
    return np.vstack(rows)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/synthetic.png"))
    parser.add_argument("--seed", type=int, default=500)
    arguments = parser.parse_args()
    sheet = contact_sheet(arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(arguments.output), sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"{arguments.output}: could not write the picture; is the folder writable?")
    print(
        f"{arguments.output}: {sheet.shape[1]} x {sheet.shape[0]} px, {arguments.output.stat().st_size / 1000:.0f} KB"
    )


if __name__ == "__main__":
    main()
