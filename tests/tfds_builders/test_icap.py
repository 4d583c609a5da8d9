"""The table of consensus codes, and that every data set's labels stand in it."""

import pytest

from hep2jax.data.sets import prepare
from tfds_builders import BUILDERS, icap


def test_codes_are_numbered_without_a_gap_and_grouped():
    assert list(icap.PATTERNS) == [f"AC-{number}" for number in range(30)]
    groups = {name: [p.number for p in icap.PATTERNS.values() if p.group == name] for name in icap.GROUPS}
    assert groups == {
        "negative": [0],
        "nuclear": [*range(1, 15), 29],
        "cytoplasmic": [*range(15, 24)],
        "mitotic": [*range(24, 29)],
    }
    assert len({pattern.name for pattern in icap.PATTERNS.values()}) == 30


@pytest.mark.parametrize("name", [name for name, builder in BUILDERS.items() if not builder.belongs_to_user])
def test_every_label_of_every_data_set_has_its_codes(name, tmp_path):
    builder = BUILDERS[name]
    for config in prepare.configurations(name):
        features = builder(config=config, data_dir=str(tmp_path)).info.features
        labels = features["pattern"] if "pattern" in features else features["patterns"].feature
        for label in labels.names:
            assert icap.codes(label), label


def test_codes_of_labels():
    assert icap.codes("speckled") == ("AC-4", "AC-5")
    assert icap.codes("AC-21") == ("AC-21",)
    assert icap.codes("none") == ()
    known = set(icap.PATTERNS)
    assert all(set(meaning.codes) <= known for meaning in icap.LABELS.values())


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("golgi", "AC-22"),
        ("speckled", "AC-4, AC-5"),
        ("nucleolar", "AC-8 to AC-10"),
        ("cytoplasmatic", "AC-15 to AC-21"),
        ("AC-3", "AC-3"),
        ("none", ""),
    ],
)
def test_codes_in_words(label, words):
    assert icap.describe(label) == words


def test_notes_say_what_a_label_leaves_open():
    assert "AC-2" in icap.note("speckled")
    assert icap.note("AC-13") == "PCNA-like"
    assert icap.note("golgi") == icap.note("none") == ""
