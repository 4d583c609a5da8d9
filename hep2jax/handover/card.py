"""The model card: what a network reads, what it was trained on, how well it reads, and what it must not be used for."""

import importlib.resources
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import hep2jax
from hep2jax import config as configs
from hep2jax import files
from hep2jax.config import Config
from hep2jax.data.sets import prepare
from hep2jax.errors import UsageError, one_line
from hep2jax.handover.programs import Program
from hep2jax.report import terms
from hep2jax.report.history import read_history
from hep2jax.report.page import split_rank
from hep2jax.training import workdir
from hep2jax.training.evaluation import Trained
from tfds_builders import icap

FILE = "README.md"
_METRICS = "report/metrics.json"
_SECTIONS = {"specimen": "specimens", "pixel": "pixels"}
_PATHS = ("data.split_lists", "model.init_from")
"""Keys whose values are places on the machine of the training; a card does not tell them."""


def make(directory: pathlib.Path, trained: Trained, program: Program) -> str:
    """The card of the network of a work directory.

    Raises:
        UsageError: the network was not evaluated, or what was written of its evaluation is damaged.
    """
    path, advice = directory / _METRICS, "evaluate the network (hep2jax evaluate)"
    if not path.is_file():
        raise UsageError(f"--workdir={directory}: {_METRICS} is missing; {advice}")
    try:
        return render(trained, program, files.read_json(path), _origin(directory))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"--workdir={directory}: {_METRICS} is damaged ({one_line(error)}); {advice}") from error


def render(trained: Trained, program: Program, metrics: dict[str, Any], origin: Sequence[str]) -> str:
    """The card in Markdown.

    Args:
        trained: the network.
        program: what is exported of it.
        metrics: the content of `report/metrics.json`.
        origin: lines on where the network comes from.
    """
    unit = "images" if program.reads_fields else "cells"
    splits = sorted(metrics, key=split_rank)
    sections = {
        "": [*_introduction(trained, program)],
        "Limits": [*_limits(trained.config, metrics)],
        "Patterns": [*_patterns(trained.classes)],
        "Training data": [*_data(trained.config)],
        "Protocol": [*_protocol(metrics, splits)],
        "Figures": [line for name in splits for line in _figures(name, metrics[name], unit)],
        "Confidence": [*_confidence(trained, metrics, splits)],
        "Origin": origin,
    }
    title = f"# {trained.config.model.name}: staining patterns of HEp-2 {'fields' if program.reads_fields else 'cells'}"
    body = (([f"## {name}", ""] if name else []) + [*lines, ""] for name, lines in sections.items())
    return "\n".join([title, "", *(line for lines in body for line in lines)]).rstrip() + "\n"


def _introduction(trained: Trained, program: Program) -> Iterator[str]:
    yield "**This is research software and not a medical device. It must not be used for diagnosis or treatment.**"
    yield ""
    if program.reads_fields:
        yield "The network reads whole fields of HEp-2 indirect immunofluorescence (grey, 8 bits) and gives every pixel"
        yield "the probability of background and of each pattern below."
    else:
        yield "The network reads crops of single HEp-2 cells of indirect immunofluorescence (grey, 8 bits) and gives"
        yield "every cell the probability of each pattern below."
    yield "Where this card came with a folder, its `io.json` describes input and output."
    size = trained.nuclear_size
    if size is not None and size.nuclear_diameter is not None:
        yield ""
        yield f"Nuclei had a median diameter of {size.nuclear_diameter:.0f} pixels in training: bring images to that"
        yield "magnification first."


def _limits(config: Config, metrics: dict[str, Any]) -> Iterator[str]:
    yield "* It knows the patterns below and no others: whatever it is shown, it names one of them."
    yield "* It was measured on the data below alone. Other laboratories, slides, cameras and magnifications give other"
    yield "  images; measure it on your own, with specimens that are held out, before you rely on a figure."
    if config.data.name == "hep2_synthetic":
        yield "* **It was trained on synthetic images.** Its figures say nothing about images of patients."
    if any(split.get("specimen_leakage") for split in metrics.values()):
        yield "* **Cells of one specimen stand on both sides of a division below**: such figures are too high for new"
        yield "  specimens."


def _patterns(classes: Sequence[str]) -> Iterator[str]:
    yield from _table(
        ("pattern", "consensus codes (ICAP)", "note"),
        (
            (terms.pattern_name(name), icap.describe(name), icap.note(name) if icap.codes(name) else "")
            for name in classes
        ),
    )


def _data(config: Config) -> Iterator[str]:
    data = config.data
    if prepare.BUILDERS[data.name].belongs_to_user:
        yield "A folder of the user's own images. Whoever passes the network on should say here what they show, and"
        yield "whose they are."
        return
    package = importlib.resources.files(prepare.BUILDERS[data.name].__module__.rpartition(".")[0])
    paragraphs = package.joinpath("README.md").read_text(encoding="utf-8").split("\n\n")
    yield f"`{data.name}`{f', configuration `{data.builder_config}`' if data.builder_config else ''}:"
    yield next(text for text in paragraphs if not text.startswith("#")).strip()
    yield ""
    yield "```bibtex"
    yield package.joinpath("CITATIONS.bib").read_text(encoding="utf-8").strip()
    yield "```"


def _protocol(metrics: dict[str, Any], splits: Sequence[str]) -> Iterator[str]:
    for name in splits:
        found = metrics[name]
        sizes = [f"{found[key]} {noun}" for key, noun in _COUNTS if found.get(key)]
        yield f"* {name} ({', '.join(sizes)}): {found.get('protocol', '')}; {found.get('leakage_note', '')}."
        yield from (f"  {note}" for note in found.get("notes") or ())


_COUNTS = (("num_examples", "examples"), ("num_specimens", "specimens"))


def _figures(split: str, found: dict[str, Any], unit: str) -> Iterator[str]:
    """The metrics with intervals of a split, and the recall of each pattern."""
    rows, methods = [], {}
    for of, values in ((unit, found), *((words, found.get(section, {})) for section, words in _SECTIONS.items())):
        names = [name for name in values if f"{name}_ci95" in values]
        rows += [(of, terms.metric_name(name), *_estimate(values, name)) for name in names]
        methods |= {str(values["ci_method"]): None} if "ci_method" in values else {}
    yield f"On {split}:"
    yield ""
    yield from _table(("of", "metric", "value", "95 % interval"), rows)
    yield ""
    yield f"Intervals over specimens: {'; '.join(methods)}." if methods else ""
    yield ""
    per_class = found.get("per_class") or {}
    if any("recall" in row for row in per_class.values()):
        recalls = ((terms.pattern_name(k), _number(row["recall"]), str(row["support"])) for k, row in per_class.items())
        yield from _table(("pattern", f"recall on {split}", unit), recalls)
        yield ""


def _estimate(values: dict[str, Any], name: str) -> tuple[str, str]:
    interval = values[f"{name}_ci95"]
    return _number(values[name]), f"{_number(interval[0])} to {_number(interval[1])}" if interval else "–"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _confidence(trained: Trained, metrics: dict[str, Any], splits: Sequence[str]) -> Iterator[str]:
    if trained.calibration is None:
        yield "The probabilities are not calibrated: do not take them for the chance that a reading is right."
        return
    temperature = ", ".join(f"{value:.3g}" for value in trained.calibration.temperature)
    yield f"The exported probabilities are not calibrated. Temperature scaling with T = {temperature}, fitted on the"
    yield "validation split, makes confidences of them (`io.json` says how). Expected calibration error (ECE):"
    yield ""
    rows = []
    for name in splits:
        if found := metrics[name].get("calibration"):
            fitted = "yes" if found["in_sample"] else "no"
            rows.append((name, _number(found["before"]["ece"]), _number(found["after"]["ece"]), fitted))
    yield from _table(("split", "ECE before", "ECE after", "fitted on it"), rows)
    yield ""
    yield f"Readings with a confidence below {trained.calibration.refer_below:.2f} should be left to a human reader."


def _origin(directory: pathlib.Path) -> list[str]:
    history, config = read_history(directory / workdir.METRICS), workdir.open_for_reading(directory)
    changed = configs.changed_keys(Config(), config)
    settings = (f"`{name}={json.dumps(value)}`" for name, _, value in changed if name not in _PATHS)
    return [
        f"* hep2jax {hep2jax.__version__}, {history.last_step} steps, `params_digest` {history.params_digest}",
        f"* settings that differ from the defaults: {', '.join(settings)}",
    ]


def _table(header: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
