"""Measures how many fields of each pattern the synthetic generator makes per second on one core.

Usage: python -m scripts.bench_generator [--seconds=1.5]
"""

import argparse
import functools
import json
import platform
import time

import cv2

from tfds_builders.hep2_synthetic import generator

SIZES = ((416, 416), (520, 694), (1040, 1388))
"""Heights and widths to measure: the default field, and an I3A camera frame at half and at full size."""


def fields_per_second(pattern: str, height: int, width: int, seconds: float) -> float:
    """Generate positive specimens of two fields for about `seconds`; returns fields per second of CPU time."""
    draw = functools.partial(generator.generate_specimen, height=height, width=width, fields=2)
    draw(0, pattern, "positive")  # warm up
    start, fields, seed = time.process_time(), 0, 1
    while time.process_time() - start < seconds:
        fields += len(draw(seed, pattern, "positive"))
        seed += 1
    return fields / (time.process_time() - start)


def main() -> None:
    """Print a table of patterns by field size and, as the last line, the same rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="CPU seconds for each measurement")
    seconds = parser.parse_args().seconds
    cv2.setNumThreads(1)
    print(f"{'fields/s per core':20s}" + "".join(f"{f'{h} x {w}':>14s}" for h, w in SIZES))
    rates: dict[str, dict[str, float]] = {}
    for pattern in generator.PATTERNS:
        rates[pattern] = {f"{h}x{w}": round(fields_per_second(pattern, h, w, seconds), 2) for h, w in SIZES}
        print(f"{pattern:20s}" + "".join(f"{rate:14.2f}" for rate in rates[pattern].values()), flush=True)
    slowest = {f"{h}x{w}": min(rate[f"{h}x{w}"] for rate in rates.values()) for h, w in SIZES}
    print(f"{'slowest':20s}" + "".join(f"{rate:14.2f}" for rate in slowest.values()))
    result = {"benchmark": "generator", "machine": platform.machine(), "unit": "fields per CPU second"}
    print(json.dumps(result | {"slowest": slowest, "patterns": rates}))


if __name__ == "__main__":
    main()
