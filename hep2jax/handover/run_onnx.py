"""Reads grey images with an exported ONNX network. Needs the packages onnxruntime and numpy, and nothing of hep2jax.

python run_onnx.py --check
python run_onnx.py IMAGE.npy OUTPUT.npy

IMAGE.npy holds grey levels, uint8 [height, width]: a whole field at the working resolution that `io.json` names, which
is read by overlapping tiles, or a cell that is resized to the network's input. This is research software and not a
medical device.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]


def load(folder):
    """A function of one grey image that returns float32 probabilities, [height, width, channels] or [channels]."""
    about = describe(folder)
    session = onnxruntime.InferenceSession(str(pathlib.Path(folder) / about["file"]))
    read = read_field if "overlap" in about else read_cell
    return lambda image: read(session, about, normalise(image, about["normalisation"]))


def describe(folder):
    """What `io.json` says of the network."""
    return json.loads((pathlib.Path(folder) / "io.json").read_text(encoding="utf-8"))["onnx"]


def normalise(image, how):
    """The grey levels as the network takes them, float32."""
    if "divide_by" in how:
        return image.astype(np.float32) / how["divide_by"]
    low, high = np.percentile(image, [how["low_percentile"], how["high_percentile"]])
    return ((image.astype(np.float32) - low) / max(high - low, 4)).astype(np.float32)


def read_cell(session, about, pixels):
    """The probability of each pattern of a cell."""
    return session.run(None, {"image": pixels[None, None]})[0][0]


def read_field(session, about, pixels):
    """The probabilities of each pixel of a field: of overlapping tiles, blended by raised cosines."""
    tile, overlap = about["input"]["shape"][-1], about["overlap"]
    padding = [(0, max(0, tile - side)) for side in pixels.shape]
    padded, window = np.pad(pixels, padding, mode="symmetric"), make_window(tile, overlap)
    total = np.zeros((*padded.shape, about["output"]["shape"][1]), np.float32)
    weight = np.zeros((*padded.shape, 1), np.float32)
    for top in starts(padded.shape[0], tile, overlap):
        for left in starts(padded.shape[1], tile, overlap):
            place = np.s_[top : top + tile, left : left + tile]
            (maps,) = session.run(None, {"image": padded[place][None, None]})
            total[place] += np.moveaxis(maps[0], 0, -1) * window
            weight[place] += window
    return (total / weight)[: pixels.shape[0], : pixels.shape[1]]


def starts(length, tile, overlap):
    """First pixels of evenly spaced tiles that overlap by at least `overlap` pixels."""
    count = max(1, int(np.ceil((length - overlap) / (tile - overlap))))
    return [int(start) for start in np.linspace(0, length - tile, count).round()]


def make_window(tile, overlap):
    """The weights of the pixels of a tile, [tile, tile, 1]."""
    ramp = np.ones(tile)
    if overlap:
        rise = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap) ** 2
        ramp[:overlap] = rise
        ramp[-overlap:] *= rise[::-1]
    return (np.outer(ramp, ramp) + 1e-6).astype(np.float32)[..., None]


def check(folder):
    """Compare the output for the test tile with that of hep2jax: the largest difference, and what is allowed."""
    test = describe(folder)["test"]
    image, wanted = (np.load(pathlib.Path(folder) / test[name])[0] for name in ("input", "output"))
    return float(np.abs(load(folder)(image) - wanted).max()), test["tolerance"]


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="IMAGE.npy OUTPUT.npy")
    parser.add_argument("--check", action="store_true", help="read the test tile and compare with hep2jax")
    options = parser.parse_args()
    folder = pathlib.Path(__file__).resolve().parent
    if options.check:
        difference, tolerance = check(folder)
        print(f"largest difference to hep2jax: {difference:.2g} (at most {tolerance:g} is allowed)")
        sys.exit(0 if difference <= tolerance else 1)
    if len(options.files) != 2:
        parser.error("name the file of the image and the file to write, or --check")
    image = np.load(options.files[0])
    if image.dtype != np.uint8 or image.ndim != 2:
        parser.error("the image must be uint8 [height, width]")
    np.save(options.files[1], load(folder)(image))


if __name__ == "__main__":
    main()
