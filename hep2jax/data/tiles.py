"""Cuts images into overlapping tiles, and blends the predictions of tiles smoothly into those of images."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32, UInt8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """Position of a tile in an image, which is padded to the size of a tile if it is smaller."""

    image: int
    """Number of the image."""
    shape: tuple[int, int]
    """(height, width) of the image without padding."""
    top: int
    left: int
    last: bool
    """Whether it is the image's last."""


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of evenly spaced tiles that cover `length` pixels and overlap by at least `overlap` pixels."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - overlap) / (tile - overlap)))
    return [int(v) for v in np.linspace(0, length - tile, count).round()]


def plan(image: int, shape: tuple[int, int], tile: int, overlap: int) -> list[Tile]:
    """The tiles of one image, row by row."""
    corners = [(y, x) for y in starts(shape[0], tile, overlap) for x in starts(shape[1], tile, overlap)]
    return [
        Tile(image=image, shape=shape, top=y, left=x, last=i == len(corners) - 1) for i, (y, x) in enumerate(corners)
    ]


def pad_to_tile(image: UInt8[np.ndarray, "height width"], tile: int) -> UInt8[np.ndarray, "padded_height padded_width"]:
    """The image; if it is smaller than a tile, it is padded at the bottom and on the right with its mirror image."""
    padding = [max(0, tile - n) for n in image.shape]
    return np.pad(image, [(0, padding[0]), (0, padding[1])], mode="symmetric") if any(padding) else image


def window(tile: int, overlap: int) -> Float32[np.ndarray, "tile tile"]:
    """Blending weights: a raised cosine over `overlap` pixels at each edge.

    They are never zero, because the sum of the weights of a pixel is divided by.
    """
    ramp = np.ones(tile)
    if overlap:
        rise = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap) ** 2
        ramp[:overlap] = rise
        ramp[-overlap:] *= rise[::-1]
    return np.outer(ramp, ramp).astype(np.float32) + np.float32(1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TileBatch:
    """Tiles of one or more images, padded with zeros to a full batch; `tiles` are the positions of the real ones.

    Batches are full because a forward pass is compiled for one batch size.
    """

    tiles: tuple[Tile, ...]
    image: UInt8[np.ndarray, "batch tile tile"]
    tone_curve: Float32[np.ndarray, "batch 4"]


def batches(
    images: Iterable[tuple[np.ndarray, np.ndarray]], *, batch_size: int, tile: int, overlap: int
) -> Iterator[TileBatch]:
    """Cut pairs of an image (uint8 [H, W]) and its tone curve (float32 [4]) into full batches of tiles.

    A batch may hold tiles of several images.
    """
    waiting: list[tuple[Tile, np.ndarray, np.ndarray]] = []
    for number, (image, tone_curve) in enumerate(images):
        padded = pad_to_tile(image, tile)
        for t in plan(number, image.shape, tile, overlap):
            waiting.append((t, padded[t.top : t.top + tile, t.left : t.left + tile], tone_curve))
            if len(waiting) == batch_size:
                yield _stack(waiting, batch_size)
                waiting = []
    if waiting:
        yield _stack(waiting, batch_size)


def _stack(rows: list[tuple[Tile, np.ndarray, np.ndarray]], batch_size: int) -> TileBatch:
    pixels = np.stack([row[1] for row in rows])
    tone_curve = np.stack([row[2] for row in rows])
    padding = [(0, batch_size - len(rows))]
    return TileBatch(
        tiles=tuple(row[0] for row in rows),
        image=np.pad(pixels, padding + [(0, 0), (0, 0)]),
        tone_curve=np.pad(tone_curve, padding + [(0, 0)]),
    )


class Blender:
    """Blends the predictions of tiles, one image at a time; returns the image's probabilities after its last tile."""

    def __init__(self, tile: int, overlap: int) -> None:
        self._window = window(tile, overlap)[..., None]
        self._weighted = np.empty_like(self._window)
        self._tile = tile
        self._sum: np.ndarray | None = None
        self._weight: np.ndarray | None = None

    def add(self, tile: Tile, probabilities: np.ndarray) -> Float32[np.ndarray, "height width class"] | None:
        """Add the probabilities [tile, tile, K] of one tile.

        Returns:
            The blended probabilities of the image after its last tile, otherwise None.
        """
        if probabilities.shape != self._window.shape:
            # One weight for each value: NumPy multiplies arrays of one shape faster than it broadcasts short rows.
            self._window = np.repeat(self._window[..., :1], probabilities.shape[-1], axis=-1)
            self._weighted = np.empty_like(self._window)
        if self._sum is None or self._weight is None:
            padded = (*(max(side, self._tile) for side in tile.shape), probabilities.shape[-1])
            self._sum, self._weight = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
        region = np.s_[tile.top : tile.top + self._tile, tile.left : tile.left + self._tile]
        self._sum[region] += np.multiply(probabilities, self._window, out=self._weighted, casting="same_kind")
        self._weight[region] += self._window
        if not tile.last:
            return None
        blended = np.divide(self._sum, self._weight, out=self._sum)[: tile.shape[0], : tile.shape[1]]
        self._sum = self._weight = None
        return blended
