"""Draws pictures of synthetic specimens, with the outlines of the masks in the right half of each picture.

Usage: python -m scripts.show_synthetic [--set=specimens|fields|mixed] [--output=docs/synthetic.png] [--seed=500]

`specimens` is the picture of the README, with the eight patterns, positive and intermediate. `fields` shows the four
fields of a positive specimen of each pattern, with a common range of grey levels. `mixed` shows the pairs of patterns
and negative specimens.
"""

import argparse
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from hep2jax.report import palette
from tfds_builders.hep2_synthetic import generator
from tfds_builders.hep2_synthetic.hep2_synthetic_dataset_builder import STRAYING

CELL = 42
"""Nuclear diameter of the specimens in pixels."""
SIDE = 212
"""Side of a picture in pixels."""
LABEL_HEIGHT = 24
DISPLAY_GAMMA = 0.8
"""Brightens the dim cytoplasm slightly, as viewers of fluorescence images do."""


def grey_range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """The grey levels to show as black and white: the background (5th percentile) and the 99.7th percentile."""
    low, high = np.percentile(np.stack(images), [5, 99.7])
    return float(low), float(high)


def stretch(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Map the range of grey levels `levels` (low, high) to 0..255, with `DISPLAY_GAMMA`."""
    low, high = levels
    scaled = np.clip((image - low) / max(high - low, 1), 0, 1)
    return (255 * scaled**DISPLAY_GAMMA).astype(np.uint8)


def outlined(field: generator.Field, levels: tuple[float, float] | None = None) -> np.ndarray:
    """A colour picture [h, w, 3] with the outlines of cells, mitotic cells and artefacts in its right half."""
    plain = cv2.cvtColor(stretch(field.image, levels or grey_range([field.image])), cv2.COLOR_GRAY2BGR)
    drawn = plain.copy()
    for item in field.objects:
        mask = (field.instance_mask == item.instance).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, palette.bgr(palette.OBJECTS[item.kind]), 1, cv2.LINE_AA)
    half = plain.shape[1] // 2
    return np.hstack([plain[:, :half], drawn[:, half:]])


def shows_enough(field: generator.Field) -> bool:
    """Whether a field has at least eight objects, and a complete mitotic cell in the half without outlines."""
    outside = field.instance_mask.copy()
    outside[2:-2, 2 : SIDE // 2] = 0
    mitotic = [item.instance for item in field.objects if item.kind == "mitotic_cell"]
    return len(field.objects) > 7 and any(not (outside == instance).any() for instance in mitotic)


def draw(
    seed: int,
    pattern: str,
    intensity: str,
    *,
    second: str = "",
    fields: int = 1,
    variation: generator.FieldVariation = generator.STEADY,
) -> list[generator.Field]:
    """Generate the fields of a specimen in the size of the pictures."""
    return generator.generate_specimen(
        seed,
        pattern,
        intensity,
        height=SIDE,
        width=SIDE,
        fields=fields,
        second=second,
        nuclear_diameter=CELL,
        variation=variation,
    )


def choose(seed: int, pattern: str, intensity: str) -> generator.Field:
    """The first field, with seeds from `seed` on, for which `shows_enough` is true, or else the last of 400."""
    for number in range(seed, seed + 400):
        field = draw(number, pattern, intensity)[0]
        if shows_enough(field):
            break
    return field


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Add a frame and a line of text to a picture."""
    picture = cv2.copyMakeBorder(picture, LABEL_HEIGHT, 4, 4, 4, cv2.BORDER_CONSTANT, value=(24, 24, 24))
    cv2.putText(
        picture, text.replace("_", " "), (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA
    )
    return picture


def contact_sheet(seed: int) -> np.ndarray:
    """Draw all patterns in four columns, each with a positive specimen above an intermediate one."""
    rows = []
    for first in range(0, len(generator.PATTERNS), 4):
        for intensity in reversed(generator.INTENSITIES):
            patterns = generator.PATTERNS[first : first + 4]
            chosen = [(outlined(choose(seed, p, intensity)), f"{p}, {intensity}") for p in patterns]
            rows.append(np.hstack([labelled(*tile) for tile in chosen]))
    return np.vstack(rows)


def fields_sheet(seed: int) -> np.ndarray:
    """Draw the four fields of a specimen of each pattern side by side, with a common range of grey levels."""
    rows = []
    for pattern in generator.PATTERNS:
        fields = draw(seed, pattern, "positive", fields=4, variation=STRAYING)
        levels = grey_range([field.image for field in fields])
        tiles = [labelled(outlined(field, levels), f"{pattern}, field {k}") for k, field in enumerate(fields)]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def mixed_sheet(seed: int) -> np.ndarray:
    """Draw two specimens of each pair of patterns and four negative specimens."""
    negative = [(generator.NEGATIVE, generator.NEGATIVE, "", seed + k) for k in range(4)]
    pairs = [(main, "positive", second, seed + k) for main, second in generator.PAIRS for k in range(2)]
    tiles = []
    for main, intensity, second, number in pairs + negative:
        field = draw(number, main, intensity, second=second)[0]
        tiles.append(labelled(outlined(field), f"{main}, {second}" if second else main))
    return np.vstack([np.hstack(tiles[first : first + 4]) for first in range(0, len(tiles), 4)])


SHEETS = {"specimens": contact_sheet, "fields": fields_sheet, "mixed": mixed_sheet}
"""The function that draws each picture."""


def main() -> None:
    """Draw the picture and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SHEETS, default="specimens")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/synthetic.png"))
    parser.add_argument("--seed", type=int, default=500)
    arguments = parser.parse_args()
    sheet = SHEETS[arguments.set](arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(arguments.output), sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"{arguments.output}: could not write the picture; is the folder writable?")
    print(
        f"{arguments.output}: {sheet.shape[1]} x {sheet.shape[0]} px, {arguments.output.stat().st_size / 1000:.0f} KB"
    )


if __name__ == "__main__":
    main()
