"""Train under split lists, then measure the finished work directory on cells and lists that were not there before."""

import json
import pathlib

import pytest

from tests.tfds_builders import test_icpr2014_task1

CLASSES = test_icpr2014_task1.CLASSES


def _write_lists(folder: pathlib.Path, **ids: list[int]) -> None:
    for side, numbers in ids.items():
        test_icpr2014_task1.write_table(folder / f"{side}.csv", test_icpr2014_task1.labels(numbers))


def _run(command, workdir: pathlib.Path, *more: str):
    flags = [
        "--config=configs/icpr2014_gao.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={workdir.parent / 'data'}",
        "--config.train.num_steps=2",
        "--config.train.global_batch_size=8",
        "--config.evaluation.batch_size=8",
    ]
    return command("hep2jax.main", *flags, *more)


def _figures(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "report" / "metrics.json").read_text())


def test_trained_without_the_test_part_and_measured_on_it_later(command, tmp_path):
    """Six patterns of three cells each: two train or validate, the third comes later."""
    first, second, third = ([start + 3 * k for k in range(6)] for start in (1, 2, 3))
    test_icpr2014_task1.write_class_folders(tmp_path / "known", [*first, *second])
    test_icpr2014_task1.write_class_folders(tmp_path / "whole")
    test_icpr2014_task1.write_places(tmp_path / "whole" / "specimens.csv")
    _write_lists(tmp_path / "lists", training=first, validation=second)
    workdir, lists = tmp_path / "w", f"--config.data.split_lists={tmp_path / 'lists'}"

    done = _run(command, workdir, lists, f"--config.data.manual_dir={tmp_path / 'known'}")
    assert done.returncode == 0, done.stderr
    assert set(_figures(workdir)) == {"validation"}
    side = _figures(workdir)["validation"]
    assert side["num_examples"] == 6
    assert side["specimen_leakage"] is True  # nobody knows: no specimens.csv there
    assert "cannot be excluded" in side["leakage_note"]
    assert "specimen" not in side

    _write_lists(tmp_path / "lists", test=third)
    done = _run(command, workdir, lists, f"--config.data.manual_dir={tmp_path / 'whole'}", "--mode=evaluate")
    assert done.returncode == 0, done.stderr
    sides = _figures(workdir)
    assert set(sides) == {"validation", "test"}
    assert sides["test"]["num_examples"] == 6
    assert sides["test"]["leakage_note"].startswith("cells of one specimen are in train and test (6 of 6 specimens)")
    assert sides["test"]["specimen"]["num_examples"] == 6


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.data.split_lists=nowhere", "data.split_lists='nowhere': there is no such folder"),
        ("--config.data.protocol=loso", "needs specimen ids, which icpr2014_task1 does not have here; take blocked"),
        ("--config.data.protocol=blocked", "data.num_folds=7: icpr2014_task1 has only 3 of homogeneous"),
        ("--config.data.name=snphep2", "snphep2: no index of cells found"),
    ],
)
def test_wrong_use_is_one_line(command, tmp_path, flag: str, message: str):
    test_icpr2014_task1.write_class_folders(tmp_path / "cells")
    done = _run(command, tmp_path / "w", f"--config.data.manual_dir={tmp_path / 'cells'}", flag)
    assert done.returncode == 2
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("hep2jax: ")]
    assert message in lines[-1], done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w" / "report").exists()
