"""Simulates the coverage of the project's 95 % intervals, on data like those of the two sets of real specimens.

    python -m scripts.simulate_coverage [--replicates=1000] [--write=docs/intervals.md]

Prints a table and, as the last line, one JSON object. Specimens are drawn from populations with known metrics; the
assumptions are described in docs/intervals.md and in the functions that draw. For comparison, the percentile bootstrap
over specimens, which the project used before, is simulated on fewer replicates.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import statistics
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import flags
from scipy.special import expit, logit

from hep2jax import cli, metrics
from hep2jax.metrics import Estimate, intervals
from hep2jax.metrics.estimates import estimates_of
from scripts import documents


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_integer("replicates", 1000, "Number of data sets drawn from each population.")
    flags.DEFINE_string(
        "write",
        None,
        "A file to write the table into, between lines <!-- table coverage --> and <!-- end coverage -->.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population:
    """A population of specimens with known metrics."""

    words: str
    usual: bool
    """Whether it is in the range of this project's results; other populations show the limits of the intervals."""
    truth: dict[str, float]
    """True values by kind of metric."""
    draw: Callable[[np.random.Generator], dict[str, Estimate]]
    """Draws a data set and returns its estimates by kind of metric."""
    resample: Callable[[np.random.Generator], dict[str, np.ndarray]] | None = None
    """Draws a data set and returns the metrics of its bootstrap samples by kind of metric."""


# Cells and specimens

DESIGNS = {
    14: ((61, 47, 42), (48, 46), (68, 41), (56, 46), (89, 63, 56), (24, 34)),
    83: tuple(np.random.default_rng(83).integers(66, 254, number) for number in (16, 16, 16, 16, 15, 4)),
}
"""Number of cells of each specimen of each pattern: as in ICPR 2012's training half, and like I3A Task 1, with its
specimens of each pattern and random numbers of cells between its minimum and maximum."""
OFFSETS = {
    "patterns alike": np.zeros(6),
    "patterns differ": np.array((-1, 1, -0.5, 0.5, 0, 1.5)),
    "the last pattern read badly": np.array((0, 0, 0, 0, 0, -4.0)),
}
"""Added to the log odds of each pattern's mean recall."""
RECALLS = (0.5, 0.7, 0.9, 0.97)
SPREADS = (0.05, 0.15, 0.3, 0.6, 0.9)
"""Spread of the recalls of specimens of one pattern. They are Beta-distributed; the spread is their variance as a share
of the variance of specimens with recall 0 or 1. According to their intervals, the results in RESULTS.md have a spread
of 0.04 to 0.07 if cells of one specimen are in both training and test data, and of 0.3 to 0.5 otherwise."""


def cell_populations(number: int) -> Iterator[Population]:
    """Each specimen has its own recall, and its cells are correct independently with this probability."""
    design = DESIGNS[number]
    pattern, items = np.repeat(np.arange(6), [len(sizes) for sizes in design]), np.concatenate(design)
    of_pattern = np.bincount(pattern, items) / items.sum()
    for name, offsets in OFFSETS.items():
        for recall in RECALLS:
            for spread in SPREADS:
                means = expit(logit(recall) + offsets)
                usual = name != "the last pattern read badly" and 0.15 <= spread <= 0.6 and recall < 0.95
                right = _beta_binomial(means[pattern], spread, items)
                yield Population(
                    words=f"{name}, recall {recall}, spread {spread}",
                    usual=usual,
                    truth={"ACA of cells": float(of_pattern @ means), "MCA of cells": float(means.mean())},
                    draw=lambda rng, right=right: _estimates(pattern, items, right(rng), "cells"),
                    resample=lambda rng, right=right: _resampled_recalls(pattern, items, right(rng), rng),
                )


def specimen_populations(number: int) -> Iterator[Population]:
    """Each specimen is correct with the probability of its pattern."""
    sizes = [len(cells) for cells in DESIGNS[number]]
    pattern, items = np.repeat(np.arange(6), sizes), np.ones(sum(sizes), np.int64)
    for name, offsets in OFFSETS.items():
        for recall in (*RECALLS, 0.6, 0.8):
            means = expit(logit(recall) + offsets)
            yield Population(
                words=f"{name}, recall {recall}",
                usual=name != "the last pattern read badly" and recall < 0.95,
                truth={"ACA of specimens": float(means[pattern].mean()), "MCA of specimens": float(means.mean())},
                draw=lambda rng, means=means: _estimates(pattern, items, rng.binomial(1, means[pattern]), "specimens"),
            )


def _beta_binomial(means: np.ndarray, spread: float, items: np.ndarray) -> Callable[[np.random.Generator], np.ndarray]:
    size = 1 / spread - 1
    return lambda rng: rng.binomial(items, rng.beta(means * size, (1 - means) * size))


def _estimates(pattern: np.ndarray, items: np.ndarray, right: np.ndarray, unit: str) -> dict[str, Estimate]:
    of_pattern = np.eye(6)[pattern]
    all_right, all_items = right[:, None] * of_pattern, items[:, None] * of_pattern
    recall = all_right.sum(0) / all_items.sum(0)
    weightings = {"ACA": all_items.sum(0), "MCA": np.ones(6)}
    if unit == "specimens":
        ci95 = {
            name: intervals.trials_interval(all_right.sum(0), all_items.sum(0), w) for name, w in weightings.items()
        }
    else:
        ci95 = {name: intervals.clustered_interval(all_right, all_items, w) for name, w in weightings.items()}
    return {
        f"{name} of {unit}": Estimate(value=float(w @ recall / w.sum()), ci95=ci95[name])
        for name, w in weightings.items()
    }


def _resampled_recalls(pattern, items, right, rng) -> dict[str, np.ndarray]:
    weights = np.zeros((_BOOTSTRAPS, len(items)))
    for rows in (np.flatnonzero(pattern == k) for k in range(6)):
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), _BOOTSTRAPS)
    of_pattern = np.eye(6)[pattern]
    all_right, all_items = weights @ (right[:, None] * of_pattern), weights @ (items[:, None] * of_pattern)
    return {
        "ACA of cells": all_right.sum(1) / all_items.sum(1),
        "MCA of cells": (all_right / all_items).mean(1),
    }


# Pixels and objects


def pixel_populations(number: int) -> Iterator[Population]:
    """Sensitivity, false area and objects' Jaccard index of specimens are Beta-distributed around the population mean.

    The foreground is log-normal around 18 % of 1.4 million pixels, the number of objects is Poisson around 50.
    """
    for quality in (0.7, 0.85, 0.95):
        for spread in (0.03, 0.1, 0.3):
            yield Population(
                words=f"quality {quality}, spread {spread}",
                usual=(quality, spread) != (0.95, 0.3),
                truth=_pixel_truth(quality, spread),
                draw=lambda rng, args=(quality, spread): _pixel_estimates(_fields(number, *args, rng)),
                resample=lambda rng, args=(quality, spread): _resampled_pixels(_fields(number, *args, rng), rng),
            )


def _fields(number: int, quality: float, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixel counts [specimens, 4] and the sum and number of the objects' Jaccard indices [specimens, 2]."""
    size = 1 / spread - 1
    sensitivity = rng.beta(quality * size, (1 - quality) * size, number)
    false_area = rng.beta((1 - quality) * size, quality * size, number)
    jaccard = rng.beta(quality * size, (1 - quality) * size, number)
    foreground = 1.4e6 * np.minimum(rng.lognormal(np.log(0.18), 0.35, number), 0.45)
    counts = np.stack([foreground * sensitivity, foreground * false_area, foreground * (1 - sensitivity)])
    counts = np.concatenate([counts, 1.4e6 - counts.sum(0, keepdims=True)]).T.astype(np.int64)
    objects = rng.poisson(50, number) + 1
    return counts, np.stack([jaccard * objects, objects], axis=1)


@functools.cache
def _pixel_truth(quality: float, spread: float) -> dict[str, float]:
    counts, objects = _fields(1_000_000, quality, spread, np.random.default_rng(1))
    values = metrics.pixel_ratios(counts.sum(0)) | {"SEG": objects[:, 0].sum() / objects[:, 1].sum()}
    return {name: float(value) for name, value in values.items()}


def _pixel_estimates(drawn: tuple[np.ndarray, np.ndarray]) -> dict[str, Estimate]:
    counts, objects = drawn
    pooled, without = (
        metrics.pixel_ratios(pixels) | {"SEG": jaccard[..., 0] / jaccard[..., 1]}
        for pixels, jaccard in ((counts.sum(0), objects.sum(0)), (counts.sum(0) - counts, objects.sum(0) - objects))
    )
    return {
        name: Estimate(value=float(value), ci95=intervals.jackknife_interval(float(value), without[name]))
        for name, value in pooled.items()
    }


def _resampled_pixels(drawn: tuple[np.ndarray, np.ndarray], rng) -> dict[str, np.ndarray]:
    counts, objects = drawn
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _BOOTSTRAPS)
    of_objects = weights @ objects
    return metrics.pixel_ratios(weights @ counts) | {"SEG": of_objects[:, 0] / of_objects[:, 1]}


# Several patterns per image


def label_populations(number: int) -> Iterator[Population]:
    """Images of a specimen share its patterns and a part of the normally distributed error of their scores.

    There are two images per specimen; each of four patterns is present in 40 % of the specimens, independently.
    """
    for distance in (1.0, 2.0, 3.0):
        for shared in (0.3, 0.7):
            yield Population(
                words=f"scores {distance} deviations apart, {shared} of the variance shared",
                usual=True,
                truth=_label_truth(distance, shared),
                draw=lambda rng, args=(distance, shared): _label_estimates(_images(number, *args, rng)),
            )


def _images(number: int, distance: float, shared: float, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = np.repeat(rng.random((number, 4)) < 0.4, 2, axis=0)
    error = np.sqrt(shared) * np.repeat(rng.normal(size=(number, 4)), 2, axis=0)
    error += np.sqrt(1 - shared) * rng.normal(size=(2 * number, 4))
    return truth, expit(distance * (truth - 0.5) + error), np.repeat(np.arange(number), 2)


@functools.cache
def _label_truth(distance: float, shared: float) -> dict[str, float]:
    rng = np.random.default_rng(2)
    drawn = [
        estimates_of(metrics.multilabel_metrics(*_images(400, distance, shared, rng)[:2], [0] * 800, "abcd"))
        for _ in range(50)
    ]
    return {kind: float(np.mean([float(row[kind]) for row in drawn])) for kind in drawn[0]}


def _label_estimates(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, Estimate]:
    return estimates_of(metrics.multilabel_metrics(*drawn, "abcd"))


# Gain from several fields


def gain_populations(number: int) -> Iterator[Population]:
    """Four fields per specimen, each correct with a probability of the specimen; together they vote by majority."""
    for alone in (0.6, 0.8, 0.95):
        for spread in (0.1, 0.3, 0.6):
            draw = functools.partial(_gains, alone, spread)
            yield Population(
                words=f"one field {alone}, spread {spread}",
                usual=alone < 0.9,
                truth={"gain of fields": float(draw(1_000_000, np.random.default_rng(3)).mean())},
                draw=lambda rng, draw=draw: {"gain of fields": _paired(draw(number, rng))},
            )


def _gains(alone: float, spread: float, number: int, rng: np.random.Generator) -> np.ndarray:
    size = 1 / spread - 1
    right = rng.binomial(4, rng.beta(alone * size, (1 - alone) * size, number))
    together = (right > 2) | ((right == 2) & (rng.random(number) < 0.5))
    return together - right / 4


def _paired(differences: np.ndarray) -> Estimate:
    return Estimate(value=float(differences.mean()), ci95=intervals.paired_interval(differences))


# Coverage

_BOOTSTRAPS, _BOOTSTRAP_REPLICATES = 500, 100
POPULATIONS: dict[str, Callable[[int], Iterator[Population]]] = {
    "cells": cell_populations,
    "specimens": specimen_populations,
    "pixels": pixel_populations,
    "labels": label_populations,
    "gain": gain_populations,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """Coverage of the intervals of one metric in one population."""

    kind: str
    words: str
    usual: bool
    share: float
    """Share of the intervals that contain the true value."""
    width: float
    """Mean width of the intervals."""
    bootstrap: float | None
    """Coverage of the percentile bootstrap; None if it was not simulated."""


def cover(population: Population, replicates: int, seed: int = 0, bootstraps: int = 0) -> list[Coverage]:
    """Draw data sets and compute the coverage for each kind of metric."""
    rng = np.random.default_rng([seed, zlib.crc32(population.words.encode())])
    covered, widths, resampled = (collections.defaultdict(list) for _ in range(3))
    for _ in range(replicates):
        for kind, estimate in population.draw(rng).items():
            low, high = estimate.ci95 or (np.nan, np.nan)
            covered[kind].append(low <= population.truth[kind] <= high)
            widths[kind].append(high - low)
    resample = population.resample or (lambda rng: {})
    for _ in range(bootstraps):
        for kind, values in resample(rng).items():
            low, high = np.percentile(values, (2.5, 97.5))
            resampled[kind].append(low <= population.truth[kind] <= high)
    return [
        Coverage(
            kind=kind,
            words=population.words,
            usual=population.usual,
            share=float(np.mean(covered[kind])),
            width=float(np.nanmean(widths[kind])),
            bootstrap=float(np.mean(resampled[kind])) if resampled[kind] else None,
        )
        for kind in covered
    ]


def table(rows: Sequence[tuple[int, Coverage]]) -> str:
    """A Markdown table with a line for each kind of metric and number of specimens."""
    lines = [
        "| figure | specimens | usual populations: mean, lowest, highest | all: lowest, where | all: highest, where "
        "| bootstrap, usual: mean, lowest |",
        "|---|---|---|---|---|---|",
    ]
    groups = collections.defaultdict(list)
    for number, row in rows:
        groups[row.kind, number].append(row)
    for (kind, number), group in groups.items():
        usual = [row.share for row in group if row.usual]
        low, high = min(group, key=lambda row: row.share), max(group, key=lambda row: row.share)
        bootstrap = [row.bootstrap for row in group if row.usual and row.bootstrap is not None]
        cells = [
            f"{_percent(statistics.mean(usual))}, {_percent(min(usual))}, {_percent(max(usual))}",
            f"{_percent(low.share)} ({low.words})",
            f"{_percent(high.share)} ({high.words})",
            f"{_percent(statistics.mean(bootstrap))}, {_percent(min(bootstrap))}" if bootstrap else "–",
        ]
        lines.append(f"| {kind} | {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main(argv: Sequence[str]) -> None:
    """Simulate, then print the table and, as the last line, one JSON object."""
    del argv
    rows = [
        (number, row)
        for name in POPULATIONS
        for number in DESIGNS
        for population in POPULATIONS[name](number)
        for row in cover(population, flags.FLAGS.replicates, bootstraps=_BOOTSTRAP_REPLICATES)
    ]
    text = table(rows)
    print(text)
    if flags.FLAGS.write:
        documents.write(pathlib.Path(flags.FLAGS.write), {"coverage": text})
    print(json.dumps([{"specimens": number} | dataclasses.asdict(row) for number, row in rows]))


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
