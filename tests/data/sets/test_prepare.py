import json
import pathlib
import shutil

import cv2
import fsspec
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from hep2jax import remote
from hep2jax.data.sets import prepare
from hep2jax.errors import UsageError
from scripts import make_example_folder
from tests.tfds_builders import icpr2012_layout
from tfds_builders import BUILDERS


@pytest.fixture
def archive(tmp_path):
    """Specimens 1 and 2 of the training half."""
    return icpr2012_layout.write_archive(tmp_path / "archive", numbers=(1, 2)).parent


def add_test_half(archive):
    """The same archive, but with specimens 4 and 10, too."""
    shutil.rmtree(archive / icpr2012_layout.ROOT_NAME)
    icpr2012_layout.write_archive(archive, numbers=(1, 2, 4, 10))


def records(builder):
    return sorted(pathlib.Path(builder.data_dir).glob("*.array_record*"))


def stamps(builder):
    return [path.stat().st_ino for path in records(builder)]


def test_data_dir_is_the_given_one_else_the_environment_s_else_tfds_s(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    monkeypatch.setenv("HOME", "/home/reader")
    assert prepare.resolve_data_dir("~/data") == pathlib.Path("/home/reader/data")
    assert prepare.resolve_data_dir(None) == pathlib.Path("/somewhere")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert prepare.resolve_data_dir(None) == pathlib.Path("/home/reader/tensorflow_datasets")


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_can_be_loaded_and_its_first_configuration_is_taken(name):
    builder = BUILDERS[name]
    assert builder.name == name
    expected = {"icpr2014_task1": "cells", "snphep2": "cells", "aida": "images"}
    assert prepare.configurations(name)[0] == expected.get(name, "specimens")


def test_builds_once_with_one_line_and_then_reuses(tmp_path, archive, capfd):
    data_dir = tmp_path / "data"
    first = prepare.prepare("icpr2012", "", str(data_dir), str(archive))
    out, err = capfd.readouterr()
    assert out == ""
    assert f"preparing icpr2012/specimens from {archive} into {data_dir}\n" in err
    assert not [line for line in err.splitlines() if not line.startswith(("preparing", "WARNING:absl:icpr2012", "W"))]
    before = stamps(first)
    for manual_dir in (str(archive), str(archive / icpr2012_layout.ROOT_NAME), None):
        again = prepare.prepare("icpr2012", "specimens", str(data_dir), manual_dir)
        assert stamps(again) == before
        assert prepare.count(again) == {"train": (2, 2)}
    assert capfd.readouterr() == ("", "")


def test_a_run_that_meets_data_just_finished_by_another_reads_them(tmp_path, archive, monkeypatch):
    """The other run ends between this one's first look at the directory and its check whether the data are there."""
    fingerprint, calls = prepare._fingerprint, []

    def overtaken(builder, manual_dir):
        calls.append(builder)
        if len(calls) == 1:
            prepare.prepare("icpr2012", "cells", str(tmp_path), str(archive))
        return fingerprint(builder, manual_dir)

    monkeypatch.setattr(prepare, "_fingerprint", overtaken)
    builder = prepare.prepare("icpr2012", "cells", str(tmp_path), str(archive))
    assert len(calls) == 2
    assert prepare.count(builder)["train"][0] > 0


def test_what_is_missing_is_kept_with_the_data(tmp_path, archive):
    prepare.prepare("icpr2012", "", str(tmp_path / "data"), str(archive))
    builder = prepare.prepare("icpr2012", "", str(tmp_path / "data"))
    assert "split test: 0 of 14 specimens found, not built" in prepare.missing(builder)


def test_configurations_stand_side_by_side(tmp_path, archive):
    data_dir = str(tmp_path / "data")
    specimens = prepare.prepare("icpr2012", "specimens", data_dir, str(archive))
    cells = prepare.prepare("icpr2012", "cells", data_dir, str(archive))
    assert prepare.count(specimens) == {"train": (2, 2)}
    assert prepare.count(cells) == {"train": (4, 2)}


def test_a_second_half_is_built_in(tmp_path, archive):
    data_dir = str(tmp_path / "data")
    before = stamps(prepare.prepare("icpr2012", "", data_dir, str(archive)))
    add_test_half(archive)
    assert stamps(prepare.prepare("icpr2012", "", data_dir)) == before  # no manual_dir: as it is
    builder = prepare.prepare("icpr2012", "", data_dir, str(archive))
    assert prepare.count(builder) == {"train": (2, 2), "test": (2, 2)}


def test_a_changed_table_is_built_in_and_a_copy_is_not(tmp_path, archive):
    data_dir = str(tmp_path / "data")
    before = stamps(prepare.prepare("icpr2012", "", data_dir, str(archive)))
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy, copy_function=shutil.copyfile)
    assert stamps(prepare.prepare("icpr2012", "", data_dir, str(copy))) == before
    table = copy / icpr2012_layout.ROOT_NAME / "Main_Dataset" / "Images" / "01" / "01.csv"
    table.write_bytes(table.read_bytes())  # a new time only
    assert stamps(prepare.prepare("icpr2012", "", data_dir, str(copy))) == before
    table.write_bytes(table.read_bytes().replace(b"homogeneous", b"centromeric"))  # of equal length
    builder = prepare.prepare("icpr2012", "", data_dir, str(copy))
    assert stamps(builder) != before
    assert {example["pattern"] for example in builder.as_data_source("train")} == {4, 1}


@pytest.mark.parametrize("suffix", [".csv", ".xls", ".xlsx"])
def test_other_labels_in_a_table_of_equal_length_are_another_source(tmp_path, suffix):
    builder = BUILDERS["aida"](data_dir=str(tmp_path / "data"))
    table = tmp_path / "manual" / f"AIDA_HEp-2_GroundTruth{suffix}"
    table.parent.mkdir()
    found = []
    for content in (b"AC-1", b"AC-2", b"AC-1"):
        table.write_bytes(content)
        found.append(prepare._fingerprint(builder, table.parent))
    assert found[0] == found[2] != found[1]


def test_old_data_stay_until_new_ones_are_whole(tmp_path, archive):
    data_dir = tmp_path / "data"
    before = stamps(prepare.prepare("icpr2012", "", str(data_dir), str(archive)))
    add_test_half(archive)
    damaged = archive / icpr2012_layout.ROOT_NAME / "Main_Dataset" / "Images" / "10" / "10.bmp"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UsageError, match="10.bmp: damaged"):
        prepare.prepare("icpr2012", "", str(data_dir), str(archive))
    builder = prepare.prepare("icpr2012", "", str(data_dir))
    assert stamps(builder) == before
    assert prepare.count(builder) == {"train": (2, 2)}
    assert sorted(path.name for path in data_dir.iterdir()) == [".icpr2012-specimens.lock", "icpr2012"]


def test_a_failed_first_build_leaves_no_data(tmp_path, archive):
    (archive / icpr2012_layout.ROOT_NAME / "Main_Dataset" / "Images" / "02" / "02.csv").write_text("x;y\n1;2")
    with pytest.raises(UsageError, match="02.csv has no column 'intensity'"):
        prepare.prepare("icpr2012", "", str(tmp_path / "data"), str(archive))
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".icpr2012-specimens.lock"]


def test_leftovers_of_a_killed_run_are_replaced(tmp_path, archive):
    data_dir = tmp_path / "data"
    left = data_dir / ".preparing-icpr2012-specimens" / "icpr2012" / "specimens" / "1.0.0"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{")
    unfinished = data_dir / "icpr2012" / "specimens" / "1.0.0"
    unfinished.mkdir(parents=True)
    builder = prepare.prepare("icpr2012", "", str(data_dir), str(archive))
    assert pathlib.Path(builder.data_dir) == unfinished
    assert prepare.count(builder) == {"train": (2, 2)}
    assert not (data_dir / ".preparing-icpr2012-specimens").exists()


def test_the_source_is_recorded_without_the_machine_s_paths(tmp_path, archive):
    builder = prepare.prepare("icpr2012", "", str(tmp_path / "data"), str(archive))
    source = json.loads((pathlib.Path(builder.data_dir) / "source.json").read_text())
    assert source["files"] == 2 * (1 + 1 + 4)
    for path in pathlib.Path(builder.data_dir).glob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_neither_data_nor_manual_dir(tmp_path):
    with pytest.raises(UsageError, match="not prepared in .* no manual_dir .* https://mivia") as caught:
        prepare.prepare("icpr2012", "", str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_empty_manual_dir_is_named(tmp_path):
    with pytest.raises(UsageError, match=f"no specimens found in '{tmp_path}'") as caught:
        prepare.prepare("icpr2012", "", str(tmp_path / "data"), str(tmp_path))
    assert "\n" not in str(caught.value)


def test_unknown_names(tmp_path):
    with pytest.raises(UsageError, match="unknown data set 'icpr': must be one of hep2_synthetic, icpr2012"):
        prepare.prepare("icpr", "", str(tmp_path))
    with pytest.raises(UsageError, match="no configuration 'specimen': .* nearest is 'specimens'"):
        prepare.prepare("icpr2012", "specimen", str(tmp_path))


def test_a_data_dir_that_cannot_be_written(tmp_path, archive):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"cannot read or write '{tmp_path}/file"):
        prepare.prepare("icpr2012", "", str(tmp_path / "file"), str(archive))


def write_record(path):
    writer = ArrayRecordWriter(path, "group_size:1")
    writer.write(b"x" * 100_000)
    writer.close()


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("write", [lambda path: pathlib.Path(path).write_text("x"), write_record])
def test_a_full_disk_is_one_line(tmp_path, write):
    with pytest.raises(UsageError, match="no space left"), prepare._as_usage_errors(tmp_path):
        write("/dev/full")


def test_other_errors_keep_their_kind(tmp_path):
    with pytest.raises(RuntimeError, match="of ours"), prepare._as_usage_errors(tmp_path):
        raise RuntimeError("a mistake of ours")


def test_a_data_set_in_object_storage_is_copied_once(tmp_path, data_dir, monkeypatch, capsys):
    """It is copied again only if a file has another size, and nothing but this set is copied."""
    monkeypatch.setattr(prepare, "_CACHE", tmp_path)
    monkeypatch.setattr(remote, "PACKAGES", {"memory": "fsspec"})
    store, url = fsspec.filesystem("memory"), "memory://bucket/sets"
    store.put(f"{data_dir}/hep2_synthetic", "bucket/sets/hep2_synthetic", recursive=True)
    store.pipe_file("bucket/sets/other/1.0.0/dataset_info.json", b"{}")
    expected = prepare.prepare("hep2_synthetic", "specimens_tiny", str(data_dir))
    for line in (True, False):
        builder = prepare.prepare("hep2_synthetic", "specimens_tiny", url)
        assert capsys.readouterr().err.startswith("copying hep2_synthetic/specimens_tiny/1.0.0 from memory://") == line
        assert prepare.count(builder) == prepare.count(expected)
    info = pathlib.Path(builder.data_dir, "dataset_info.json")
    assert info.is_relative_to(tmp_path)
    assert len(list(tmp_path.rglob("dataset_info.json"))) == 1
    info.write_text("{")
    monkeypatch.setenv("TFDS_DATA_DIR", url)
    assert prepare.count(prepare.prepare("hep2_synthetic", "specimens_tiny")) == prepare.count(expected)
    with pytest.raises(UsageError, match="^data.data_dir=memory://bucket/sets: holds no icpr2012/specimens/.*on disk"):
        prepare.prepare("icpr2012")


def test_the_owners_files_must_be_on_disk(tmp_path):
    with pytest.raises(UsageError, match="^data.manual_dir=s3://bucket/files: must be a folder on disk$"):
        prepare.prepare("icpr2012", "", str(tmp_path), "s3://bucket/files")


@pytest.fixture
def own_folder(tmp_path):
    make_example_folder.write(tmp_path / "own" / "my folder", "cells", specimens=1, side=192, seed=0)
    return tmp_path / "own" / "my folder"


def test_each_folder_of_one_s_own_has_a_place_of_its_own(tmp_path, own_folder):
    data_dir, other = tmp_path / "data", tmp_path / "other" / "my folder"
    first = prepare.prepare("folder", "cells", str(data_dir), str(own_folder))
    shutil.copytree(own_folder, other)
    second = prepare.prepare("folder", "cells", str(data_dir), str(other))
    places = [pathlib.Path(builder.data_dir).relative_to(data_dir).parts for builder in (first, second)]
    assert [(place[0], place[1][:10], *place[2:]) for place in places] == [
        ("folders", "my_folder-", "folder", "cells", "1.0.0")
    ] * 2
    assert places[0] != places[1]
    (tmp_path / "link").symlink_to(own_folder)
    before = stamps(first)
    for name in (f"{own_folder}/../my folder/", str(tmp_path / "link")):
        assert stamps(prepare.prepare("folder", "cells", str(data_dir), name)) == before
    with pytest.raises(
        UsageError, match=r"'folder' needs --manual_dir=DIR \(--config.data.manual_dir=DIR\), your folder"
    ):
        prepare.prepare("folder", "cells", str(data_dir))


def test_a_mask_that_is_edited_in_place_is_built_in(tmp_path, own_folder):
    """Its size in bytes need not change, as with the BMP files here."""
    before = stamps(prepare.prepare("folder", "cells", str(tmp_path / "data"), str(own_folder)))
    for half in (False, True):
        for mask in (own_folder / "masks").iterdir():
            cells = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
            cells[: half * len(cells) // 2] = 0
            mask.write_bytes(cv2.imencode(".bmp", cells)[1].tobytes())  # the content decides, not the name
        after = prepare.prepare("folder", "cells", str(tmp_path / "data"), str(own_folder))
        assert stamps(after) != before
        before = stamps(after)
    assert not any(example["mask"][:10].any() for example in after.as_data_source("train"))


def test_patterns_of_a_folder_are_those_of_its_table(tmp_path, own_folder):
    patterns = prepare.patterns("folder", "cells", str(tmp_path / "data"), str(own_folder))
    assert patterns == ("centromere", "homogeneous", "nuclear_membrane")
    assert prepare.patterns("icpr2012", "cells")[0] == "homogeneous"
