"""What bounds a training step, and the changes that would save most of its time. All functions are pure.

The same rules judge a profile (measured times) and a compilation for TPUs (estimated ones). Every change comes with the
figure that it follows from and the flag that tries it. The savings are upper bounds: they assume that the cause goes
away and that nothing else becomes slower.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hep2jax.config import Config
from hep2jax.data.streams import canvases
from hep2jax.models import SEGMENTERS
from hep2jax.report.tables import Table, milliseconds, percent

NUM_CHANGES = 3
LEAST_SHARE = 0.02
"""Changes that save less of a step are not worth a trial."""

_STEPS_PER_CALL = 8
_WAITING, _IDLE = 0.05, 0.1  # shares of a step from which on input or dispatch are what bounds it
_MEMORY_TO_DOUBLE = 0.45  # share of the memory up to which twice the batch fits
SMALL = "operations too small or too narrow for the chip"
_FILLED = 0.25  # share of a step that arithmetic or traffic must explain to be what bounds it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Padding:
    """A module whose results are padded, in the layout of the chip."""

    module: str
    waste: float
    """Share of padding in the bytes of its results."""
    seconds: float
    """Time of the module in a step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a step on one device; times in seconds, None or 0 if they are not known."""

    platform: str
    """cpu, gpu or tpu."""
    step: float
    waiting: float = 0.0
    """The device waited for data."""
    idle: float = 0.0
    """The device ran nothing although data were there."""
    products: float | None = None
    """In operations that contain convolutions or matrix products."""
    optimizer: float = 0.0
    """In the optimizer and the averages, whose work does not depend on the batch."""
    arithmetic: float | None = None
    """What the FLOPs of the published network take at the chip's published peak."""
    traffic: float | None = None
    """What the bytes of all operands and results take at the published bandwidth."""
    memory_share: float | None = None
    """Share of the device's memory that the program needs."""
    larger_batches_tried: bool = False
    """Whether this batch is the best of several, so that a larger one need not be tried."""
    cores_busy: float | None = None
    """CPU: how many cores worked on average."""
    cores: int | None = None
    """CPU: how many there are."""
    devices: int = 1
    collectives: float = 0.0
    """Transfers between chips, with their latency at best."""
    slowest_module: str = ""
    slowest_seconds: float = 0.0
    padding: Sequence[Padding] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One change to try."""

    text: str
    figure: str
    """The figure that it follows from."""
    flag: str
    """What to add to the command."""
    saves: float
    """Upper bound of what it saves, in seconds of a step with the present batch."""


def bound(evidence: Evidence) -> str:
    """What bounds the step: input, dispatch, communication, compute, memory or `SMALL` operations."""
    step = evidence.step
    if evidence.waiting >= _WAITING * step and evidence.waiting >= evidence.idle:
        return "input"
    if evidence.idle >= _IDLE * step:
        return "dispatch"
    if evidence.collectives >= _IDLE * step:
        return "communication"
    if evidence.arithmetic is not None and evidence.traffic is not None:
        if max(evidence.arithmetic, evidence.traffic) < _FILLED * step:
            return SMALL
        return "memory" if evidence.traffic > evidence.arithmetic else "compute"
    if evidence.products is not None:
        return "compute" if evidence.products >= (step - evidence.waiting - evidence.idle) / 2 else "memory"
    return "compute"


def verdict(evidence: Evidence) -> str:
    """What bounds the step, with the figures that say so, as one sentence."""
    step = evidence.step
    shares = [
        ("waiting for data", evidence.waiting),
        ("no operation running", evidence.idle),
        ("transfers between chips", evidence.collectives),
        ("the network's arithmetic at the published peak", evidence.arithmetic),
        ("what operations read and write, some of it on the chip, at the published bandwidth of HBM", evidence.traffic),
        ("operations with convolutions or matrix products", evidence.products),
    ]
    known = [f"{name} {percent(seconds / step)}" for name, seconds in shares if seconds]
    figures = f": of a step of {milliseconds(step)}, {', '.join(known)}" if known else ""
    return f"Bound by {bound(evidence)}{figures}."


def changes(evidence: Evidence, config: Config) -> list[Change]:
    """The changes that save most, at most `NUM_CHANGES`, largest first."""
    found = [*_input(evidence, config), *_dispatch(evidence, config), *_precision(evidence, config)]
    found += [*_cores(evidence), *_batch(evidence, config), *_lanes(evidence, config), *_slowest(evidence, config)]
    worth = [change for change in found if change.saves >= LEAST_SHARE * evidence.step]
    return sorted(worth, key=lambda change: -change.saves)[:NUM_CHANGES]


def to_dict(evidence: Evidence, config: Config) -> dict[str, Any]:
    """The verdict, the changes and what they follow from, for files of results."""
    found = [dataclasses.asdict(change) for change in changes(evidence, config)]
    return {"bound": bound(evidence), "changes": found, "evidence": dataclasses.asdict(evidence)}


def table(evidence: Evidence, config: Config) -> Table:
    """The verdict and the changes, for the terminal and for pages."""
    rows = [
        [change.text, percent(change.saves / evidence.step), change.figure, change.flag]
        for change in changes(evidence, config)
    ]
    note = f"{verdict(evidence)} "
    note += (
        "Add a flag to the same command and compare; what is saved is an upper bound, in shares of this step."
        if rows
        else f"No change that is known here saves more than {percent(LEAST_SHARE)} of the step."
    )
    return Table(title="What to change", header=["change", "saves up to", "because", "try"], rows=rows, note=note)


def _input(evidence: Evidence, config: Config) -> list[Change]:
    figure = f"waiting for data: {percent(evidence.waiting / evidence.step)} of the step"
    if canvases.on_devices(config.data, evidence.platform):
        ahead = 2 * config.train.prefetch
        flag = f"--config.train.prefetch={ahead}"
        return [Change(text="prepare more batches ahead", figure=figure, flag=flag, saves=evidence.waiting)]
    flag = "--config.data.warp=device"
    return [Change(text="cut and turn crops on the device", figure=figure, flag=flag, saves=evidence.waiting)]


def _dispatch(evidence: Evidence, config: Config) -> list[Change]:
    figure = f"no operation running: {percent(evidence.idle / evidence.step)} of the step"
    if evidence.platform == "cpu":
        size = 2 * config.train.global_batch_size
        flag = f"--config.train.global_batch_size={size}"
        return [Change(text="a larger batch", figure=figure, flag=flag, saves=evidence.idle / 2)]
    if config.train.steps_per_call > 1:
        return []
    flag = f"--config.train.steps_per_call={_STEPS_PER_CALL}"
    saves = evidence.idle * (1 - 1 / _STEPS_PER_CALL)
    return [Change(text="several steps in one call", figure=figure, flag=flag, saves=saves)]


def _precision(evidence: Evidence, config: Config) -> list[Change]:
    if config.train.compute_dtype != "float32" or evidence.platform == "cpu":
        return []
    busy = evidence.step - evidence.waiting - evidence.idle - evidence.collectives
    flag, figure = "--config.train.compute_dtype=bfloat16", "operands are float32: twice the bytes, half of the peak"
    return [Change(text="compute in bfloat16", figure=figure, flag=flag, saves=busy / 2)]


def _cores(evidence: Evidence) -> list[Change]:
    if evidence.cores_busy is None or evidence.cores is None or evidence.devices >= evidence.cores:
        return []
    # Cores that wait for data or for the next step are not what more devices would use.
    busy = evidence.step - evidence.waiting - evidence.idle
    saves = max(0.0, busy - evidence.cores_busy / evidence.cores * evidence.step)
    figure = f"{evidence.cores_busy:.1f} of {evidence.cores} cores are busy"
    flag = f"JAX_NUM_CPU_DEVICES={evidence.cores} before the command"
    return [Change(text="one device for each core", figure=figure, flag=flag, saves=saves)]


def _batch(evidence: Evidence, config: Config) -> list[Change]:
    share = evidence.memory_share
    if evidence.platform == "cpu" or evidence.larger_batches_tried or share is None or share > _MEMORY_TO_DOUBLE:
        return []
    saves, reason = evidence.optimizer / 2, f"the optimizer takes {percent(evidence.optimizer / evidence.step)} of it"
    if bound(evidence) == SMALL:
        useful = max(evidence.arithmetic or 0.0, evidence.traffic or 0.0)
        saves = (evidence.step - evidence.waiting - evidence.idle - useful) / 2
        reason = f"arithmetic and traffic explain {percent(useful / evidence.step)} of the step"
    figure = f"{reason}; {percent(share)} of the memory is in use"
    flag = f"--config.train.global_batch_size={2 * config.train.global_batch_size}"
    return [Change(text="a larger batch", figure=figure, flag=flag, saves=saves)]


def _lanes(evidence: Evidence, config: Config) -> list[Change]:
    if not evidence.padding:
        return []
    worst = max(evidence.padding, key=lambda row: row.waste * row.seconds)
    figure = f"{percent(worst.waste)} of the results of {worst.module} are padding"
    flag = f"--config.model.width={2 * config.model.width:g}"
    text = "wider layers, which cost little more (another network)"
    return [Change(text=text, figure=figure, flag=flag, saves=worst.waste * worst.seconds)]


def _slowest(evidence: Evidence, config: Config) -> list[Change]:
    if not evidence.slowest_module:
        return []
    figure = f"{evidence.slowest_module} takes {percent(evidence.slowest_seconds / evidence.step)} of the step"
    if config.model.name in SEGMENTERS and config.model.pixel_block == 1:
        text, flag = "blocks of pixels as channels (another network)", "--config.model.pixel_block=2"
        return [Change(text=text, figure=figure, flag=flag, saves=evidence.slowest_seconds * 3 / 4)]
    text, flag = "narrower layers (another network)", f"--config.model.width={config.model.width / 2:g}"
    return [Change(text=text, figure=figure, flag=flag, saves=evidence.slowest_seconds / 2)]
