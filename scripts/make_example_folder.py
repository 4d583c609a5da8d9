"""Writes a folder of synthetic images, masks and labels, in the layout of docs/your-own-folder.md.

Usage: python -m scripts.make_example_folder --output=example [--kind=specimens|cells] [--specimens=4] [--side=256]
       [--seed=0]

`specimens` writes one field of each specimen, with a 16-bit mask in which each cell has its number. `cells` writes the
cells of these fields, cut out with their black and white masks. The patterns are three of the synthetic generator.
"""

import argparse
import csv
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from hep2jax.data.sets import cells
from tfds_builders.hep2_synthetic import generator

PATTERNS = ("homogeneous", "centromere", "nuclear_membrane")
DIAMETER = 48
"""Median nuclear diameter of the specimens in pixels."""
HEAD = ("image", "mask", "pattern", "specimen", "intensity")


def _image(folder: pathlib.Path, name: str, image: np.ndarray, mask: np.ndarray) -> list[str]:
    """Write an image and its mask; their paths as the table names them."""
    paths = [f"images/{name}.png", f"masks/{name}.png"]
    for path, pixels in zip(paths, (image, mask), strict=True):
        cv2.imwrite(str(folder / path), pixels)
    return paths


def _specimen_rows(folder: pathlib.Path, field: generator.Field, name: str) -> Iterator[list[str]]:
    kept = [item.instance for item in field.objects if item.kind == "cell"]
    yield _image(folder, name, field.image, np.where(np.isin(field.instance_mask, kept), field.instance_mask, 0))


def _cell_rows(folder: pathlib.Path, field: generator.Field, name: str) -> Iterator[list[str]]:
    kept = [item.instance for item in field.objects if item.kind == "cell"]
    for cut in cells.cut_out(field.image, field.instance_mask, kept).cuts:
        yield _image(folder, f"{name}-{cut.number:02d}", cut.image, np.where(cut.mask, np.uint8(255), np.uint8(0)))


def write(folder: pathlib.Path, kind: str, *, specimens: int, side: int, seed: int) -> int:
    """Write the folder, with `specimens` specimens of each pattern in fields of `side` pixels; the number of images."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows_of = {"specimens": _specimen_rows, "cells": _cell_rows}[kind]
    rows: list[list[str]] = []
    for pattern in PATTERNS:
        for number in range(specimens):
            intensity = ("positive", "intermediate")[number % 2]
            (field,) = generator.generate_specimen(
                10_000_000 + 1000 * seed + number,  # no seed of the set `hep2_synthetic`
                pattern,
                intensity,
                height=side,
                width=side,
                fields=1,
                nuclear_diameter=DIAMETER,
            )
            specimen = f"{pattern}-{number + 1}"
            rows += [[*files, pattern, specimen, intensity] for files in rows_of(folder, field, specimen)]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder that the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--kind", choices=("specimens", "cells"), default="specimens")
    parser.add_argument("--specimens", type=int, default=4, help="of each pattern")
    parser.add_argument("--side", type=int, default=256, help="of a field, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"'{options.output}' exists; name another --output, or remove it")
    if options.specimens < 1 or not 64 <= options.side <= 4096 or options.seed < 0:
        parser.error("needs --specimens of at least 1, a --side of 64 to 4096, and a --seed of at least 0")
    count = write(options.output, options.kind, specimens=options.specimens, side=options.side, seed=options.seed)
    print(f"{count} images of {len(PATTERNS) * options.specimens} specimens in {options.output}")


if __name__ == "__main__":
    main()
