"""Reads grey images with an exported network. Needs the packages jax, flatbuffers and numpy, and nothing of hep2jax.

python run_stablehlo.py --check
python run_stablehlo.py IMAGE.npy OUTPUT.npy [--mask=MASK.npy]

IMAGE.npy holds uint8 [height, width], or [batch, height, width]; `io.json` beside this file says what else counts, and
what the probabilities that are written mean. From Python: `read = load(folder)`, then `probabilities = read(images)`.
This is research software and not a medical device.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export


def load(folder):
    """The exported program as a function of uint8 images [batch, height, width] (and masks): float32 probabilities.

    It is compiled for each new shape.
    """
    program = (pathlib.Path(folder) / describe(folder)["file"]).read_bytes()
    return jax.jit(export.deserialize(bytearray(program)).call)


def describe(folder):
    """What `io.json` says of the program."""
    return json.loads((pathlib.Path(folder) / "io.json").read_text(encoding="utf-8"))["stablehlo"]


def check(folder):
    """Compare the output for the test image with that of hep2jax: the largest difference, and what is allowed."""
    test = describe(folder)["test"]
    images = [np.load(pathlib.Path(folder) / name) for name in test["inputs"]]
    wanted = np.load(pathlib.Path(folder) / test["output"])
    return float(np.abs(np.asarray(load(folder)(*images)) - wanted).max()), test["tolerance"]


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="IMAGE.npy OUTPUT.npy")
    parser.add_argument("--mask", help="uint8 mask of each cell, 0 outside, for networks that take masks")
    parser.add_argument("--check", action="store_true", help="read the test image and compare with hep2jax")
    options = parser.parse_args()
    folder = pathlib.Path(__file__).resolve().parent
    if options.check:
        difference, tolerance = check(folder)
        print(f"largest difference to hep2jax: {difference:.2g} (at most {tolerance:g} is allowed)")
        sys.exit(0 if difference <= tolerance else 1)
    if len(options.files) != 2:
        parser.error("name the file of the images and the file to write, or --check")
    arrays = [np.load(name) for name in filter(None, (options.files[0], options.mask))]
    if any(array.dtype != np.uint8 or array.ndim not in (2, 3) for array in arrays):
        parser.error("images and masks must be uint8 [height, width] or [batch, height, width]")
    single = arrays[0].ndim == 2
    probabilities = np.asarray(load(folder)(*(array[None] if single else array for array in arrays)))
    np.save(options.files[1], probabilities[0] if single else probabilities)


if __name__ == "__main__":
    main()
