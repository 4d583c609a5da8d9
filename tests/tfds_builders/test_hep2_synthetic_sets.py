"""The synthetic sets with fields that stray from their specimen, with two patterns or none; what all sets are."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.ensemble import ExtraTreesClassifier

from tests.tfds_builders.hep2_statistics import field_cells, summary
from tfds_builders.hep2_synthetic import generator, mixtures, parameters
from tfds_builders.hep2_synthetic import hep2_synthetic_dataset_builder as builders
from tfds_builders.hep2_synthetic.parameters import FieldVariation

CONFIGS = {config.name: config for config in builders.Builder.BUILDER_CONFIGS}
STRAYING = CONFIGS["fields"].variation
SMALL = {"height": 208, "width": 208}

# What each configuration draws in this version, as `fingerprint` sums it up; its sizes are not in it.
VERSION = "1.0.0"
FINGERPRINTS = {
    "specimens": (-1213, -16019, -151),
    "specimens_tiny": (-1213, -16019, -151),
    "specimens_large": (-1213, -16019, -151),
    "fields": (-1317, -15161, 617),
    "fields_tiny": (-1317, -15161, 617),
    "mixed": (-4510, 2864, 1044),
    "mixed_tiny": (-4510, 2864, 1044),
}


def fingerprint(config):
    """Sums of small specimens, two of each combination of patterns, under random signs: of pixels twice, of instances.

    Any change of what is drawn changes many pixels, and the sums by hundreds; another processor's rounding, where it
    shows at all, changes a pixel or two by one grey level.
    """
    config = dataclasses.replace(config, height=96, width=96, fields=1)
    kinds = itertools.product(builders.combinations(config), (0, 1))
    drawn = [field for kind, number in kinds for field in builders.draw_fields(config, "test", kind, number)]
    images, instances = (np.stack([getattr(field, name) for field in drawn]) for name in ("image", "instance_mask"))
    signs = np.random.default_rng(0).choice([-1, 1], (3, *images.shape))
    return tuple(int(np.sum(s * m)) for s, m in zip(signs, (images, images, instances), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_drawn_has_its_version(name):
    found = fingerprint(CONFIGS[name])
    assert str(builders.Builder.VERSION) == VERSION, "put the new version and its fingerprints into this test"
    np.testing.assert_allclose(
        found,
        FINGERPRINTS[name],
        atol=16,
        rtol=0,
        err_msg=f"'{name}' is not drawn as in version {VERSION}, and prepared copies are kept by their version: raise "
        f"VERSION in hep2_synthetic_dataset_builder.py, then put it and the new fingerprint {found} into this test",
    )


# Fields that stray


def conditions(variation, count=3000):
    rng = np.random.default_rng(0)
    drawn = [parameters.draw_conditions(rng, variation) for _ in range(count)]
    return {name: np.array([getattr(c, name) for c in drawn]) for name in dataclasses.asdict(drawn[0])}


def test_conditions_stray_as_stated():
    drawn = conditions(STRAYING)
    # Cut at 1.7 standard deviations, which takes 7 % off the spread.
    assert np.log(drawn["exposure"]).std() == pytest.approx(0.93 * STRAYING.exposure, rel=0.05)
    assert np.log(drawn["density"]).std() == pytest.approx(0.93 * STRAYING.density, rel=0.05)
    assert np.sqrt(np.mean(drawn["defocus"] ** 2)) == pytest.approx(STRAYING.defocus, rel=0.05)
    assert np.sqrt(np.mean(drawn["illumination"] ** 2)) == pytest.approx(STRAYING.illumination, rel=0.05)
    assert drawn["badly_stained"].mean() == pytest.approx(STRAYING.badly_stained, rel=0.05)
    assert np.mean(drawn["badly_stained"] < 0.1) > 0.25
    assert np.mean(drawn["badly_stained"] > 0.9) > 0.1


def test_steady_conditions_change_nothing():
    drawn = conditions(generator.STEADY, count=3)
    neutral = {"exposure": 1, "defocus": 0, "density": 1, "illumination": 0, "badly_stained": 0}
    assert {name: set(values) for name, values in drawn.items()} == {k: {v} for k, v in neutral.items()}


@functools.cache
def straying(seeds=4, **stray):
    """Fields of specimens that stray in one respect (or in none), [specimen][field]."""
    options = {"height": 128, "width": 128, "nuclear_diameter": 24.0, "fields": 4, "variation": FieldVariation(**stray)}
    return [generator.generate_specimen(s, "homogeneous", "positive", **options) for s in range(seeds)]


def spread(specimens, measure):
    """Standard deviation of the logarithm of a measure from field to field, pooled over specimens."""
    logs = np.log([[measure(field) for field in fields] for fields in specimens])
    return np.sqrt(np.mean(logs.var(axis=1, ddof=1)))


def test_exposure_sets_all_light():
    for measure in (lambda f: np.percentile(f.image, 20), lambda f: np.mean(f.image[f.instance_mask > 0])):
        assert spread(straying(exposure=0.4, seeds=8), measure) == pytest.approx(0.93 * 0.4, abs=0.12)
        assert spread(straying(), measure) < 0.15


def test_density_sets_the_number_of_cells():
    assert spread(straying(density=0.6), lambda f: len(f.objects)) > 1.4 * spread(straying(), lambda f: len(f.objects))


def test_illumination_makes_the_outside_darker():
    def fall(specimens):
        return np.mean([_fall(field) for fields in specimens for field in fields])

    assert fall(straying(illumination=0.4)) > fall(straying()) + 0.05


def _fall(field):
    """How much darker the background is outside the middle, as a share."""
    middle = np.zeros(field.image.shape, bool)
    middle[32:96, 32:96] = True
    background = field.instance_mask == 0
    return 1 - np.median(field.image[background & ~middle]) / np.median(field.image[background & middle])


@functools.cache
def cells(pattern, intensity="positive", *, second="", variation=generator.STEADY):
    """Medians of the statistics of whole cells of three specimens."""
    options = {"height": 312, "width": 312, "fields": 1, "second": second, "variation": variation}
    made = [generator.generate_specimen(s, pattern, intensity, **options)[0] for s in range(3)]
    return summary([cell for field in made for cell in field_cells(field, True, margin=8)])


@pytest.mark.parametrize("variation", [FieldVariation(defocus=0.3), FieldVariation(badly_stained=0.99)])
def test_blur_and_bad_staining_wash_the_pattern_out(variation):
    assert cells("coarse_speckled", variation=variation)["resid"] < 0.7 * cells("coarse_speckled")["resid"]


def test_badly_stained_cells_are_dim():
    spoilt = cells("coarse_speckled", variation=FieldVariation(badly_stained=0.99))
    assert 0.5 < spoilt["net"] / cells("coarse_speckled")["net"] < 0.9


def test_a_straying_field_does_not_depend_on_the_number_of_fields():
    options = {**SMALL, "variation": STRAYING}
    two, four = (generator.generate_specimen(3, "golgi", "positive", fields=n, **options) for n in (2, 4))
    assert [f.image.tobytes() for f in two] == [f.image.tobytes() for f in four[:2]]


def readable_cells(field):
    """Statistics of each whole cell of a field."""
    found = field_cells(field, False, margin=8)
    return [np.nan_to_num(np.concatenate([np.ravel(value) for value in cell.values()])) for cell in found]


def read_specimens(split, count):
    """(index of the pattern, [field][cell] statistics) of `count` specimens of each pattern of `fields`."""
    for (index, pattern), number in itertools.product(enumerate(generator.PATTERNS), range(count)):
        fields = builders.draw_fields(CONFIGS["fields"], split, (pattern,), number)
        yield index, [readable_cells(field) for field in fields]


@pytest.mark.slow
def test_four_fields_are_read_better_than_one():
    """By a forest on the statistics of cells with true masks, each cell one vote; 64 test specimens of `fields`."""
    train = [(p, cells) for p, fields in read_specimens("train", 8) for cells in fields if len(cells)]
    forest = ExtraTreesClassifier(200, min_samples_leaf=3, class_weight="balanced", random_state=0)
    forest.fit(np.concatenate([c for _, c in train]), np.concatenate([[p] * len(c) for p, c in train]))
    alone, together = [], []
    for pattern, fields in read_specimens("test", 8):
        votes = [np.bincount(forest.predict(c), minlength=8) if len(c) else np.zeros(8) for c in fields]
        alone.append(np.mean([v.any() and v.argmax() == pattern for v in votes]))
        together.append(np.sum(votes, axis=0).argmax() == pattern)
    figures = (np.mean(alone), np.mean(together), np.mean(np.less(alone, 1)))
    print("right by one field {:.3f}, by four {:.3f}; specimens with a field read wrong {:.3f}".format(*figures))
    assert np.mean(np.less(alone, 1)) > 0.3
    assert np.mean(together) > np.mean(alone) + 0.04


# Two patterns, or none


def test_pairs_lie_in_different_compartments():
    nucleoplasm = {"homogeneous", "fine_speckled", "coarse_speckled"}
    assert {pattern for pair in generator.PAIRS for pattern in pair} == set(generator.PATTERNS)
    for main, second in generator.PAIRS:
        assert main not in ("cytoplasmic", "golgi")
        assert not {main, second} <= nucleoplasm


@pytest.mark.parametrize(("main", "second"), generator.PAIRS)
def test_both_patterns_of_a_pair_can_be_seen(main, second):
    alone, both = (cells(main, "intermediate", second=name) for name in ("", second))
    if second == "nucleolar":
        assert both["bright"] > alone["bright"] + 0.02
    else:
        assert both["outside"][1] > alone["outside"][1] + 0.1
    if main == "centromere":
        assert both["spots15"] > 8
    elif main == "nuclear_membrane":
        assert both["profile"][-1] > both["profile"][0]
    elif main == "nucleolar":
        assert both["bright"] > 0.05
    else:
        assert both["profile"][0] > 0.95 * both["profile"][-1]


def test_a_pair_that_is_not_drawn_is_named():
    with pytest.raises(ValueError, match="'homogeneous' and 'fine_speckled'"):
        generator.generate_specimen(0, "homogeneous", "positive", fields=1, second="fine_speckled", **SMALL)
    with pytest.raises(ValueError, match="pattern 'negative'"):
        generator.generate_specimen(0, "negative", "positive", fields=1, **SMALL)


def test_negatives_are_dim_and_even():
    negative, weakest = cells("negative", "negative"), cells("golgi", "intermediate")
    assert 0.5 < negative["net"] < mixtures.NEGATIVE_NET + 1 < weakest["net"]
    assert negative["resid"] * negative["net"] < 1.5  # grey levels: noise


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    builder = builders.Builder(config="mixed_tiny", data_dir=tmp_path_factory.mktemp("data"))
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    return builder.info.features, {split: list(builder.as_data_source(split)) for split in builders.SPLITS}


def test_mixed_records_have_every_pattern_of_the_specimen(mixed):
    features, examples = mixed
    assert tuple(features["pattern"].names) == (*generator.PATTERNS, "negative")
    assert tuple(features["intensity"].names) == (*generator.INTENSITIES, "negative")
    for split in builders.SPLITS:
        found = [tuple(generator.PATTERNS[k] for k in e["patterns"]) for e in examples[split]]
        single = [(pattern,) for pattern in generator.PATTERNS]
        assert sorted(found) == sorted([*single, *generator.PAIRS, *[()] * builders.NEGATIVES])


def test_the_class_mask_has_the_main_pattern(mixed):
    features, examples = mixed
    for example in itertools.chain.from_iterable(examples.values()):
        main = features["pattern"].int2str(example["pattern"])
        first = [generator.PATTERNS[k] for k in example["patterns"]][:1] or ["negative"]
        assert [main] == first
        assert set(np.unique(example["class_mask"])) <= {0, 1 + example["pattern"], generator.VOID}
        assert (features["intensity"].int2str(example["intensity"]) == "negative") == (main == "negative")


def test_sets_share_no_specimen():
    configs = [CONFIGS[name] for name in ("specimens", "fields", "mixed")]
    assert len({config.seed for config in configs}) == len(configs)


def test_fields_has_the_promised_specimens():
    config = CONFIGS["fields"]
    assert [8 * getattr(config, split) for split in builders.SPLITS] == [128, 64, 64]
    assert (config.height, config.width, config.fields) == (416, 416, 4)
