"""Writes a made-up archive in the layout of I3A Task 2: small images of discs, masks, and tables."""

import pathlib
from collections.abc import Iterable

import cv2
import numpy as np

CLASSES = ("homogeneous ", "speckled ", "nucleolar ", "centromere ", "numem ", "golgi ", "mitsp ")
SHAPE = (64, 80)
SPECIMENS = tuple(range(1, 15))  # two of each class
DISCS = ((20, 20), (50, 22), (24, 52), (60, 57), (70, 51))  # the last two touch
RADIUS = 8


def class_of(specimen: int) -> str:
    return CLASSES[(specimen - 1) // 2]


def intensity_of(specimen: int) -> str:
    return ("positive", "intermediate")[specimen % 2]


def mask(specimen: int, field: int) -> np.ndarray:
    """uint8 [64, 80], 255 on the discs."""
    pixels = np.zeros(SHAPE, np.uint8)
    for x, y in DISCS:
        cv2.circle(pixels, (x, y), RADIUS, 255, -1)
    return np.roll(pixels, (specimen + field) % 4 - 2, axis=1)


def image(specimen: int, field: int) -> np.ndarray:
    """uint8 [64, 80]: noise, brighter on the discs, by specimen."""
    noise = np.random.default_rng((specimen, field)).integers(10, 30, SHAPE)
    return (noise + (mask(specimen, field) > 0) * (60 + 10 * specimen)).astype(np.uint8)


def save(path: pathlib.Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def path_of(root: pathlib.Path, specimen: int, field: int, ending: str = "") -> pathlib.Path:
    return root / "train_ICPR2014_task2" / "train" / f"{specimen:05d}_p{field}{ending}.tif"


def write_images(root: pathlib.Path, specimens: Iterable[int] = SPECIMENS, fields: int = 4) -> pathlib.Path:
    for specimen in specimens:
        for field in range(fields):
            save(path_of(root, specimen, field), image(specimen, field))
            save(path_of(root, specimen, field, "_Mask"), mask(specimen, field))
    return root


def rows(specimens: Iterable[int] = SPECIMENS) -> list[str]:
    return [f"{specimen:05d},{class_of(specimen)},{intensity_of(specimen)}" for specimen in specimens]


def write_table(root: pathlib.Path, lines: Iterable[str], name: str = "gt.csv") -> None:
    (root / name).write_text("\n".join(lines))


def write_archive(root: pathlib.Path, specimens: Iterable[int] = SPECIMENS, fields: int = 4) -> pathlib.Path:
    """Images, masks and one table with a header; returns `root`."""
    specimens = tuple(specimens)
    write_images(root, specimens, fields)
    write_table(root, ["patient id,class,intensity", *rows(specimens)])
    return root
