import pathlib

import pytest

from hep2jax.data.sets.items import Item, identifier_key
from hep2jax.data.splits import lists
from hep2jax.errors import UsageError
from tests.data.tables import cells, change

CLASSES = ("nuclear_membrane", "golgi")


def _items() -> list[Item]:
    """Ids 00001 to 00004 of the first class, 00005 to 00008 of the second."""
    return cells(specimens=2, size=2)


def _write(folder: pathlib.Path, **texts: str) -> str:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_bytes(text.encode())
    return str(folder)


def _assign(folder: pathlib.Path, **texts: str) -> lists.Assignment:
    return lists.assign(_write(folder, **texts), "made_up", _items(), CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        "Image ID,Image class\n00001,NuMem\n00005,Golgi\n",
        "Image ID,Image class\r\n1,NuMem\r\n5,Golgi",
        "\ufeffImage ID,Image class\n 1 , Nuclear Membrane\n\n5,golgi\n",
        "ID,location,Pattern\n1,3,nuclear-membrane\n5,4,GOLGI\n",
        "Image ID\n1\n5\n",
        "00001,NuMem\n00005,Golgi\n",
        "1\n5",
        "1\n5\n1\n",
    ],
)
def test_every_shape_of_list(tmp_path: pathlib.Path, text: str):
    made = _assign(tmp_path, training=text)
    assert made.splits == ("train", "", "", "", "train", "", "", "")
    assert made.notes == (
        "validation.csv is not there",
        "test.csv is not there",
        "6 of 8 ids of made_up are in no list and left out",
    )


def test_an_id_of_any_length_is_only_absent(tmp_path: pathlib.Path):
    assert "1 ids of training.csv are not in the data" in _assign(tmp_path, training=f"1\n{'9' * 5000}").notes


def test_each_list_is_a_side():
    sides = {"train": "training.csv", "validation": "validation.csv", "test": "test.csv"}
    assert sides == lists.FILES


def test_ids_that_the_set_does_not_have_are_counted(tmp_path: pathlib.Path):
    made = _assign(tmp_path, training="1\n2\n3\n4\n99", validation="5\n6", test="\n".join(map(str, range(1000, 3720))))
    assert made.splits == ("train",) * 4 + ("validation",) * 2 + ("",) * 2
    assert made.notes == (
        "1 ids of training.csv are not in the data",
        "2,720 ids of test.csv are not in the data, so that this side is empty",
        "2 of 8 ids of made_up are in no list and left out",
    )


def test_a_folder_without_training_list_is_for_measuring(tmp_path: pathlib.Path):
    made = _assign(tmp_path, test="1\n2\n3\n4\n5\n6\n7\n8")
    assert made.splits == ("test",) * 8
    assert made.notes == ("training.csv is not there", "validation.csv is not there")


def test_ids_that_are_no_numbers(tmp_path: pathlib.Path):
    items = change(_items(), identifier=lambda item: f"s{item.pattern}-{item.identifier}")
    items[0:1] = change(items[0:1], identifier="alpha")  # not a header, as the set knows it
    folder = _write(tmp_path, training="alpha\ns1-00005\ns1-5\n")
    made = lists.assign(folder, "made_up", items)
    assert made.splits == ("train", "", "", "", "train", "", "", "")
    assert made.notes[0] == "1 ids of training.csv are not in the data"


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        ({"training": "1\n2", "test": "3\n0002"}, r"test.csv: id 0002 is also in training.csv"),
        ({"training": "1\n77", "test": "77"}, r"test.csv: id 77 is also in training.csv"),
        ({"training": "1,NuMem\n5,NuMem"}, r"training.csv: id 5 is listed as 'NuMem', but is 'golgi' in made_up"),
        ({"training": "1,Ring"}, r"training.csv: id 1 is listed as 'Ring', but is 'nuclear_membrane' in made_up"),
        ({"training": "1,NuMem\n1,Golgi"}, r"training.csv: id 1 is listed both as 'NuMem' and 'Golgi'"),
        ({"training": "90\n91", "test": "1"}, r"training.csv: none of its 2 ids is in made_up; to evaluate only, give"),
        ({"training": ""}, r"training.csv: none of its 0 ids is in made_up"),
        ({"training": "1,\0\udcff"}, r"training.csv: cannot be read as a csv list"),
        ({"other": "1"}, r"contains none of training.csv, validation.csv, test.csv"),
    ],
)
def test_bad_lists_are_refused(tmp_path: pathlib.Path, texts: dict[str, str], line: str):
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=line) as caught:
        _assign(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_missing_folder_is_refused(folder: str):
    with pytest.raises(UsageError, match=f"data.split_lists='{folder}': there is no such folder"):
        lists.assign(folder, "made_up", _items())


def test_a_set_without_ids_is_refused(tmp_path: pathlib.Path):
    folder = _write(tmp_path, training="1")
    with pytest.raises(UsageError, match="holdout on made_up needs a unique id for every example, but one has no id"):
        lists.assign(folder, "made_up", change(_items(), identifier=" "))


def test_order_of_ids():
    ids = ["b-2", "00010", "9", "a-10", "1000000000000"]
    assert sorted(ids, key=identifier_key) == ["9", "00010", "1000000000000", "a-10", "b-2"]
    assert identifier_key("00012") == identifier_key(" 12") != identifier_key("1²")
