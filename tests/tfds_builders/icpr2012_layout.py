"""Writes a small made-up archive in the layout, and with the quirks, of the MIVIA HEp-2 images dataset v1.0."""

import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageCms

ROOT_NAME = "MIVIA_HEp-2_Images_Dataset"
CONTEST = "ICPR2012_Cells_Classification_Contest"
SHAPE = (48, 64)
TRAIN = (1, 2, 3, 5, 6, 7, 8, 9, 11, 14, 18, 20, 25, 26)
TEST = (4, 10, 12, 13, 15, 16, 17, 19, 21, 22, 23, 24, 27, 28)
PATTERNS = {
    "homogeneous": (1, 5, 18, 21, 22),
    "fine_speckled": (2, 9, 15, 23),
    "coarse_speckled": (6, 10, 11, 12, 17),
    "nucleolar": (4, 8, 20, 24),
    "centromere": (3, 7, 13, 14, 16, 19),
    "cytoplasmatic": (25, 26, 27, 28),
}
INTERMEDIATE = (2, 4, 5, 7, 10, 11, 14, 15, 19, 20, 21, 25, 28)

# Object number -> kind, and box as rows and columns (half-open). 3 lies on 1, as objects do overlap.
OBJECTS = {
    1: ("cell", (4, 30, 6, 30)),
    2: ("mitotic_cell", (8, 20, 40, 52)),
    3: ("artefact", (24, 34, 24, 34)),
    4: ("cell", (34, 44, 44, 58)),
}


def pattern_of(number: int) -> str:
    return next(name for name, numbers in PATTERNS.items() if number in numbers)


def intensity_of(number: int) -> str:
    return "intermediate" if number in INTERMEDIATE else "positive"


def object_mask(number: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    top, bottom, left, right = OBJECTS[number][1]
    mask[top:bottom, left:right] = True
    return mask


def specimen_image(number: int) -> np.ndarray:
    """Colour noise with the signal in green, different for every specimen and channel."""
    image = np.random.default_rng(number).integers(0, 40, (*SHAPE, 3)).astype(np.uint8)
    for key in OBJECTS:
        image[..., 1][object_mask(key)] += np.uint8(20 * key + number)
    return image


def write_archive(
    parent: pathlib.Path, numbers: Iterable[int] = (*TRAIN, *TEST), suffix: str = ".bmp", crops: bool = True
) -> pathlib.Path:
    """Write the specimens `numbers` and their contest cells; returns the owner's root below `parent`."""
    root = parent / ROOT_NAME
    numbers = sorted(numbers)
    for number in numbers:
        _write_specimen(root, number, suffix)
    if crops:
        _write_contest(root, numbers)
    (root / "README_FIRST.txt").write_text("27\tCytoplasmatic\tintermediate\t44\t38\t2\r", newline="")
    return root


def _write_specimen(root: pathlib.Path, number: int, suffix: str) -> None:
    folder = root / "Main_Dataset" / "Images" / f"{number:02d}"
    folder.mkdir(parents=True)
    Image.fromarray(specimen_image(number)).save(folder / f"{number:02d}{suffix}")
    # The owner's mask of all objects lacks most of them in images 08, 09 and 10.
    shown = [1] if number in (8, 9, 10) else list(OBJECTS)
    whole = np.any([object_mask(key) for key in shown], axis=0)
    Image.fromarray(whole.astype(np.uint8) * 255).save(folder / f"{number:02d}_mask{suffix}")
    # Images 01 to 07 end their lines with CR alone; no table has a newline after its last line.
    ending = "\r" if number <= 7 else "\n"
    (folder / f"{number:02d}.csv").write_text(ending.join(_table(number)), newline="")
    _write_masks(root / "Main_Dataset" / "Cells" / "Cell_Masks" / f"{number:02d}", number)


def _table(number: int) -> list[str]:
    lines = ["intensity;cell_ID;seed_pointX;seed_pointY;object_type;pattern;minX;minY;maxX;maxY"]
    for key, (kind, (top, bottom, left, right)) in OBJECTS.items():
        label = {"cell": _spelling(number), "mitotic_cell": "negative", "artefact": ""}[kind]
        kind = "artefatto" if number == 5 and kind == "artefact" else kind
        box = f"{left + 1};{top + 1};{right + 1};{bottom + 1}"
        lines.append(f"{intensity_of(number)};{key:03d};{left + 2};{top + 2};{kind};{label};{box}")
    return lines


def _spelling(number: int) -> str:
    return "centromeric" if number in (3, 7) else pattern_of(number)


def _write_masks(folder: pathlib.Path, number: int) -> None:
    """1-bit, 8-bit with a soft edge, and 8-bit with the colour profile that makes libpng warn."""
    folder.mkdir(parents=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for key in OBJECTS:
        name = "004..png" if number == 9 and key == 4 else f"{key:03d}.png"
        mask = object_mask(key).astype(np.uint8) * 255
        if key == 2:
            mask[OBJECTS[2][1][1]] = mask[OBJECTS[2][1][1] - 1] // 3  # below half white: not of the object
        bits = Image.fromarray(mask).convert("1") if key % 2 else Image.fromarray(mask)
        bits.save(folder / name, **({"icc_profile": profile} if key == 4 else {}))


def cell_keys(number: int) -> list[int]:
    """Objects of a specimen that are contest cells (image 26 has a cell that is none)."""
    cells = [key for key, (kind, _) in OBJECTS.items() if kind == "cell"]
    return cells[:1] if number == 26 else cells


def cell_slice(key: int) -> tuple[slice, slice]:
    """The contest's crop, which starts one pixel late."""
    top, bottom, left, right = OBJECTS[key][1]
    return slice(top + 1, bottom + 1), slice(left + 1, right + 1)


def _write_contest(root: pathlib.Path, numbers: list[int]) -> None:
    lines = [
        "ICPR2012Contest_Cell_ID;Set;Image;Intensity;Original_cell_ID;Cell_class;Cell_width;Cell_height",
        *_write_set(root / CONTEST / "training", [n for n in numbers if n in TRAIN]),
        *_write_set(root / CONTEST / "test", [n for n in numbers if n in TEST]),
    ]
    (root / CONTEST).mkdir(exist_ok=True)
    (root / CONTEST / "cells.csv").write_text("\n".join(lines))


def _write_set(folder: pathlib.Path, numbers: list[int]) -> list[str]:
    """Crops of one half, ids from 1; returns their lines of `cells.csv`."""
    lines = []
    for number, key in ((n, key) for n in numbers for key in cell_keys(n)):
        folder.mkdir(parents=True, exist_ok=True)
        where, cell = cell_slice(key), len(lines) + 1
        Image.fromarray(specimen_image(number)[where]).save(folder / f"{cell:03d}.png")
        Image.fromarray(object_mask(key)[where]).save(folder / f"{cell:03d}_mask.png")
        height, width = object_mask(key)[where].shape
        labels = f"{intensity_of(number)};{key};{pattern_of(number)}"
        lines.append(f"{cell};{folder.name};{number};{labels};{width};{height}")
    return lines
