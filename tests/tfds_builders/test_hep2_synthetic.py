"""The synthetic specimens: their form, and their statistics against those of real specimens.

"Published" stands for the figures measured on the I3A (ICPR 2014) cells and the MIVIA (ICPR 2012) images that
the README of the builder lists. Levels are net of the background, lengths are pixels at a nuclear diameter of 48.
"""

import itertools
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import spatial

from tests.tfds_builders.hep2_statistics import field_cells, noise_sigma, summary
from tfds_builders.hep2_synthetic import generator, optics, parameters
from tfds_builders.hep2_synthetic.geometry import Window, body_outline, nucleus_outline
from tfds_builders.hep2_synthetic.hep2_synthetic_dataset_builder import SPLITS, Builder, SyntheticConfig
from tfds_builders.hep2_synthetic.layout import Cell
from tfds_builders.hep2_synthetic.mitosis import stain_mitotic_cell
from tfds_builders.pixels import encode_png

SPECIMENS = 8
SIZE = {"height": 416, "width": 416, "fields": 1}
NUCLEAR = [p for p in generator.PATTERNS if p != "cytoplasmic"]

# Published, (intermediate, positive): coefficient of variation of the net level in the mask.
CV = {
    "homogeneous": (0.23, 0.22),
    "fine_speckled": (0.20, 0.25),  # MIVIA: I3A does not tell fine from coarse
    "coarse_speckled": (0.33, 0.30),
    "nucleolar": (0.45, 0.97),
    "centromere": (0.67, 0.75),
    "nuclear_membrane": (0.22, 0.25),
    "golgi": (0.49, 0.62),
    "cytoplasmic": (0.35, 0.56),
}
# Published: net level relative to the cell's mean, at normalised depth 0-0.2 ... 0.9-1 and 1-2, 3-4, 5-7 px outside.
PROFILE = {
    "homogeneous": (1.16, 1.14, 1.11, 1.04, 0.88, 0.68, 0.45, 0.25, 0.15),
    "fine_speckled": (1.22, 1.18, 1.15, 1.06, 0.82, 0.58, 0.38, 0.21, 0.12),
    "coarse_speckled": (1.22, 1.18, 1.15, 1.06, 0.82, 0.58, 0.38, 0.21, 0.12),
    "nucleolar": (1.38, 1.40, 1.19, 0.91, 0.71, 0.59, 0.48, 0.35, 0.24),
    "centromere": (1.38, 1.47, 1.29, 0.91, 0.63, 0.46, 0.30, 0.17, 0.11),
    "nuclear_membrane": (0.94, 0.93, 0.94, 0.97, 1.06, 1.16, 1.06, 0.62, 0.36),
    "golgi": (1.09, 1.06, 1.01, 0.92, 0.94, 1.04, 1.31, 1.35, 1.05),
}


@pytest.fixture(scope="module")
def fields():
    """Field 0 of eight specimens of each (pattern, intensity)."""
    kinds = itertools.product(generator.PATTERNS, generator.INTENSITIES)
    return {(p, i): [generator.generate_specimen(s, p, i, **SIZE)[0] for s in range(SPECIMENS)] for p, i in kinds}


@pytest.fixture(scope="module")
def cells(fields):
    """Statistics of the isolated whole interphase cells, a list for each specimen of each (pattern, intensity)."""
    return {key: [field_cells(field, key[0] != "cytoplasmic") for field in value] for key, value in fields.items()}


def medians(cells, pattern, intensity=None):
    """Medians over the cells of one pattern (of both intensities, unless told)."""
    chosen = [value for key, value in cells.items() if key[0] == pattern and intensity in (None, key[1])]
    return summary([cell for specimens in chosen for cells_ in specimens for cell in cells_])


def pooled(cells, patterns, key):
    return np.array([c[key] for (p, _), value in cells.items() if p in patterns for cs in value for c in cs])


# Form


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again, other = (generator.generate_specimen(s, "golgi", "positive", **SIZE)[0] for s in (5, 5, 6))
    for name in ("image", "instance_mask", "class_mask"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert first.objects == again.objects
    assert first.image.tobytes() != other.image.tobytes()


def test_a_field_does_not_depend_on_the_number_of_fields():
    options = {"height": 160, "width": 200}
    two = generator.generate_specimen(3, "centromere", "positive", fields=2, **options)
    three = generator.generate_specimen(3, "centromere", "positive", fields=3, **options)
    assert [f.image.tobytes() for f in two] == [f.image.tobytes() for f in three[:2]]
    assert two[0].image.tobytes() != two[1].image.tobytes()


def test_patterns_with_one_seed_share_no_layout():
    masks = [generator.generate_specimen(1, p, "positive", **SIZE)[0].instance_mask > 0 for p in NUCLEAR]
    agreement = [np.mean(a == b) for a, b in itertools.combinations(masks, 2)]
    assert max(agreement) < 0.85


def test_masks_and_objects_agree(fields):
    for (pattern, _), values in fields.items():
        for field in values:
            assert field.image.dtype == field.class_mask.dtype == np.uint8
            assert field.instance_mask.dtype == np.uint16
            assert field.image.shape == field.instance_mask.shape == field.class_mask.shape == (416, 416)
            assert field.image.max() <= optics.SATURATION
            numbers = [item.instance for item in field.objects]
            assert numbers == list(range(1, len(numbers) + 1)) == list(np.unique(field.instance_mask))[1:]
            label = 1 + generator.PATTERNS.index(pattern)
            expected = np.array([0] + [generator.VOID if o.kind == "artefact" else label for o in field.objects])
            np.testing.assert_array_equal(field.class_mask, expected[field.instance_mask])


def test_cells_cut_by_the_frame_are_annotated(fields):
    frame = np.ones((416, 416), bool)
    frame[1:-1, 1:-1] = False
    cut = [len(np.unique(f.instance_mask[frame])) - 1 for values in fields.values() for f in values]
    assert np.mean(cut) > 3


def test_saturation_is_reached_where_real_specimens_reach_it(fields):
    assert max(f.image.max() for f in fields["nucleolar", "positive"]) == optics.SATURATION
    assert np.median([f.image.max() for f in fields["homogeneous", "intermediate"]]) < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "speckled", "positive", 64, 1), "pattern 'speckled'"),
        ((0, "golgi", "strong", 64, 1), "intensity 'strong'"),
        ((-1, "golgi", "positive", 64, 1), "seed -1"),
        ((0, "golgi", "positive", 8, 1), "size 8x64"),
        ((0, "golgi", "positive", 64, 0), "fields 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    seed, pattern, intensity, height, count = arguments
    with pytest.raises(ValueError, match=message):
        generator.generate_specimen(seed, pattern, intensity, height=height, width=64, fields=count)


def test_nuclear_diameter_scales_the_specimen():
    values = []
    for seed in range(6):
        options = {"height": 520, "width": 520, "fields": 1, "nuclear_diameter": 77.0}
        values += field_cells(generator.generate_specimen(seed, "homogeneous", "positive", **options)[0], True)
    assert np.median([c["diameter"] for c in values]) == pytest.approx(77, abs=6)
    with pytest.raises(ValueError, match="nuclear_diameter 5"):
        generator.generate_specimen(0, "golgi", "positive", **SIZE, nuclear_diameter=5.0)


# Statistics: sizes, shapes, density


def test_nuclear_diameter_matches_i3a(cells):
    diameters = pooled(cells, NUCLEAR, "diameter")
    assert diameters.mean() == pytest.approx(48.3, abs=1.5)
    assert diameters.std() == pytest.approx(4.7, abs=1.2)


def test_axis_ratio_matches_i3a(cells):
    ratios = pooled(cells, NUCLEAR, "axis_ratio")
    assert ratios.mean() == pytest.approx(0.80, abs=0.02)
    assert np.percentile(ratios, 5) == pytest.approx(0.71, abs=0.03)
    assert np.percentile(ratios, 95) == pytest.approx(0.92, abs=0.03)


def test_foreground_fraction_matches_i3a(fields):
    shares = np.array([np.mean(f.instance_mask > 0) for values in fields.values() for f in values])
    assert shares.mean() == pytest.approx(0.19, abs=0.03)
    assert 0.09 - 0.04 < shares.min() < shares.max() < 0.30 + 0.10  # fields here are an eighth of a frame


def test_nearest_neighbours_match_mivia(fields):
    """MIVIA: median 88 px and 5th percentile 57 px at a nuclear diameter of 77 px."""
    spacing = []
    for (pattern, _), values in fields.items():
        for field in values if pattern in NUCLEAR else ():
            present = np.arange(1, len(field.objects) + 1)
            centres = np.array([np.mean(np.nonzero(field.instance_mask == k), axis=1) for k in present])
            spacing += list(spatial.KDTree(centres).query(centres, k=2)[0][:, 1])
    assert np.median(spacing) / 48 == pytest.approx(88 / 77, abs=0.12)
    assert np.percentile(spacing, 5) / 48 == pytest.approx(57 / 77, abs=0.15)


def test_shares_of_mitotic_cells_and_artefacts_match_mivia(fields):
    kinds = [item.kind for values in fields.values() for f in values for item in f.objects]
    assert len(kinds) > 2000
    assert np.mean([k == "mitotic_cell" for k in kinds]) == pytest.approx(0.044, abs=0.012)
    assert np.mean([k == "artefact" for k in kinds]) == pytest.approx(0.035, abs=0.012)


def test_cytoplasmic_cells_have_the_size_and_shape_of_mivia(cells):
    """Equivalent diameter 122 beside 77 px of a nucleus, eccentricity 0.89 to 0.93, nucleus darker than the rest."""
    middle = medians(cells, "cytoplasmic")
    assert middle["diameter"] / 48 == pytest.approx(122 / 77, abs=0.15)
    assert np.sqrt(1 - middle["axis_ratio"] ** 2) == pytest.approx(0.91, abs=0.05)
    assert middle["profile"][0] < 0.9 < 1.0 < middle["profile"][3]


# Statistics: levels, noise


def test_background_matches_i3a(fields):
    """Frames 13 to 48, specimens mostly 14 to 28."""
    levels = [np.median(f.image[f.instance_mask == 0]) for values in fields.values() for f in values]
    assert min(levels) >= 10
    assert max(levels) <= 48
    assert np.percentile(levels, 15) >= 14
    assert np.percentile(levels, 85) <= 28


@pytest.mark.parametrize(("level", "sigma"), [(12, 0.55), (17, 0.60), (22, 0.65), (35, 0.8), (50, 1.15), (100, 1.6)])
def test_noise_law_matches_i3a(level, sigma):
    specimen = parameters.draw_specimen(np.random.default_rng(0), "homogeneous", "positive", 48.0)
    flat = np.full((256, 256), level - specimen.background, np.float32)
    conditions = parameters.draw_conditions(np.random.default_rng(0), parameters.STEADY)
    image = optics.photograph(np.random.default_rng(1), flat, specimen, conditions)
    assert noise_sigma(image) == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("pattern", generator.PATTERNS)
def test_cell_levels_match_the_published_medians(cells, pattern):
    intermediate, positive = (medians(cells, pattern, i)["net"] for i in generator.INTENSITIES)
    published = parameters.MEDIAN_NET[pattern]
    assert intermediate == pytest.approx(published[0], rel=0.45)
    assert positive == pytest.approx(published[1], rel=0.45)
    assert positive > 1.15 * intermediate


# Statistics: what makes the patterns


@pytest.mark.parametrize("intensity", generator.INTENSITIES)
@pytest.mark.parametrize("pattern", generator.PATTERNS)
def test_contrast_inside_the_cells_matches_the_published(cells, pattern, intensity):
    published = CV[pattern][generator.INTENSITIES.index(intensity)]
    assert medians(cells, pattern, intensity)["cv"] == pytest.approx(published, rel=0.35)


@pytest.mark.parametrize("pattern", NUCLEAR)
def test_radial_profile_matches_i3a(cells, pattern):
    middle = medians(cells, pattern)
    profile = np.concatenate([middle["profile"], middle["outside"]])
    np.testing.assert_allclose(profile, PROFILE[pattern], atol=0.3 if pattern == "golgi" else 0.2)


def test_patterns_have_their_marks(cells):
    middle = {pattern: medians(cells, pattern) for pattern in generator.PATTERNS}
    spots = {pattern: value["spots15"] for pattern, value in middle.items()}
    assert spots["centromere"] == pytest.approx(23, abs=8)
    assert spots["centromere"] > 3 * spots["homogeneous"]
    assert middle["centromere"]["profile"][0] > 2 * middle["centromere"]["profile"][-1]
    assert middle["nuclear_membrane"]["profile"][-1] > 1.1 * middle["nuclear_membrane"]["profile"][0]
    assert middle["nucleolar"]["bright"] > 0.08 > middle["homogeneous"]["bright"]
    assert middle["golgi"]["outside"][1] > 0.9 > 2 * middle["homogeneous"]["outside"][1]
    assert (
        middle["coarse_speckled"]["resid"]
        > 1.3 * middle["fine_speckled"]["resid"]
        > 1.1 * middle["homogeneous"]["resid"]
    )


@pytest.mark.parametrize("pattern", NUCLEAR)
def test_specimens_differ_more_than_the_cells_of_one(cells, pattern):
    """Brightness relative to the intensity's median, and diameter (there the real ones differ less: see the README)."""
    for key in ("net", "diameter"):
        logs = []
        for intensity in generator.INTENSITIES:
            unit = medians(cells, pattern, intensity)[key]
            logs += [np.log([c[key] / unit for c in cs]) for cs in cells[pattern, intensity] if len(cs) > 2]
        between = np.std([np.median(values) for values in logs])
        assert between > np.median([np.std(values) for values in logs]), key


def test_fields_of_a_specimen_differ_less_than_specimens():
    specimens = [generator.generate_specimen(s, "homogeneous", "positive", **SIZE | {"fields": 3}) for s in range(6)]
    levels = np.log([[np.median(f.image[f.instance_mask > 0]) for f in fields] for fields in specimens])
    assert 0 < np.median(levels.std(axis=1)) < levels.mean(axis=1).std()


def metaphase(pattern, seed):
    """The stain of one metaphase cell: mean on the plate and beside it."""
    rng = np.random.default_rng(seed)
    nucleus = nucleus_outline(rng, 58.0, 0.95, 0.0)
    body = body_outline(rng, nucleus, 0.0, 76.0)
    cell = Cell((40.0, 40.0), 48.0, 0.6, nucleus, body, 1.0, 0.0, "metaphase")
    window = Window.around(cell.centre, 35.0)
    texture = parameters.draw_specimen(rng, pattern, "positive", 48.0).texture
    stain = stain_mitotic_cell(pattern)(rng, cell, window, texture)
    along, across = window.axes(cell.angle)
    plate = (np.abs(across) < 3) & (np.abs(along) < 15)
    beside = (np.abs(across) > 9) & (np.abs(across) < 18) & (np.abs(along) < 15)
    return stain[plate].mean(), stain[beside].mean()


@pytest.mark.parametrize("pattern", generator.PATTERNS)
def test_metaphase_plate_is_bright_only_under_homogeneous_and_centromere(pattern):
    plate, beside = np.mean([metaphase(pattern, seed) for seed in range(5)], axis=0)
    if pattern in ("homogeneous", "centromere"):
        assert plate > 3 * beside
    else:
        assert plate < 0.7 * beside


# The builder


def test_default_configuration_has_the_promised_specimens():
    config = next(c for c in Builder.BUILDER_CONFIGS if c.name == "specimens")
    assert Builder.BUILDER_CONFIGS[0] is config
    counts = [len(generator.PATTERNS) * getattr(config, split) for split in SPLITS]
    assert counts == [96, 16, 32]
    assert (config.height, config.width, config.fields) == (416, 416, 2)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny data set of two fields a specimen, written and read back: {split: examples with raw PNG bytes}."""
    config = SyntheticConfig(name="tiny", height=96, width=128, fields=2, train=2, validation=1, test=1, seed=7)
    builder = Builder(config=config, data_dir=tmp_path_factory.mktemp("data"))
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    raw = {name: tfds.decode.SkipDecoding() for name in ("image", "instance_mask", "class_mask")}
    return builder, {split: list(builder.as_data_source(split, decoders=raw)) for split in SPLITS}


def test_builder_writes_every_field_of_every_specimen_without_tensorflow(built):
    builder, examples = built
    assert {split: len(values) for split, values in examples.items()} == {"train": 32, "validation": 16, "test": 16}
    assert builder.info.features["pattern"].names == list(generator.PATTERNS)
    assert builder.info.features["intensity"].names == list(generator.INTENSITIES)
    assert "tensorflow" not in sys.modules


def test_builder_keeps_specimens_of_splits_apart(built):
    _, examples = built
    ids = {split: {e["specimen_id"].decode() for e in values} for split, values in examples.items()}
    assert ids["test"] == {f"test-{pattern}-00" for pattern in generator.PATTERNS}
    images = {split: {e["image"] for e in values} for split, values in examples.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not ids[one] & ids[other]
        assert not images[one] & images[other]


def test_builder_writes_what_the_generator_makes(built):
    _, examples = built
    for example in examples["test"]:
        image, instances, classes = (
            cv2.imdecode(np.frombuffer(example[name], np.uint8), cv2.IMREAD_UNCHANGED)
            for name in ("image", "instance_mask", "class_mask")
        )
        assert (image.dtype, instances.dtype, classes.dtype) == (np.uint8, np.uint16, np.uint8)
        assert image.shape == instances.shape == classes.shape == (96, 128)
        assert set(np.unique(classes)) <= {0, 1 + example["pattern"], generator.VOID}
        assert list(np.unique(instances))[1:] == list(example["objects"]["instance"])
        artefact = generator.KINDS.index("artefact")
        void = [i for i, k in zip(*example["objects"].values(), strict=True) if k == artefact]
        np.testing.assert_array_equal(np.isin(instances, void), classes == generator.VOID)
        assert example["field"] in (0, 1)
        assert generator.INTENSITIES[example["intensity"]] == "positive"  # specimen 00 of each pattern


def test_png_keeps_sixteen_bits():
    values = np.arange(60_000, 60_100, dtype=np.uint16).reshape(10, 10)
    decoded = cv2.imdecode(np.frombuffer(encode_png(values).getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, values)
