"""Reads `metrics.jsonl`, the log of a run with one JSON object per line."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from hep2jax.report.markup import is_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """The curves of a run, its last step and the digest of its parameters."""

    series: dict[tuple[str, str], dict[int, float]]
    """(split, name) → step → value, finite values only; the names of nested keys are joined by dots."""
    not_finite: dict[tuple[str, str], list[int]]
    """(split, name) → the steps with a value that was NaN or infinite."""
    last_step: int | None
    params_digest: str | None


def read_history(path: pathlib.Path) -> History:
    """Read the file; without a file, the history is empty.

    Lines that are not JSON objects are skipped, because the last line of a killed run may be incomplete. If a step
    occurs twice, the later line counts: a resumed run repeats the steps after its checkpoint.
    """
    series: dict[tuple[str, str], dict[int, float]] = {}
    not_finite: dict[tuple[str, str], list[int]] = {}
    last_step = params_digest = None
    for record in _records(path):
        params_digest = record.get("params_digest", params_digest)
        step, split = record.get("step"), str(record.get("split", "train"))
        if not isinstance(step, int) or isinstance(step, bool):
            continue
        last_step = step if last_step is None else max(step, last_step)
        for name, value in _numbers(record):
            if is_number(value):
                series.setdefault((split, name), {})[step] = float(value)
            else:
                not_finite.setdefault((split, name), []).append(step)
    ordered = {key: dict(sorted(points.items())) for key, points in series.items()}
    return History(series=ordered, not_finite=not_finite, last_step=last_step, params_digest=params_digest)


def _records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _numbers(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _numbers(value, prefix=f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and prefix + name != "step":
            yield prefix + name, value
