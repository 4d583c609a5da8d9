"""What a card says of networks that were measured with a leak, on fields, or without calibration."""

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig
from hep2jax.handover import card, programs
from tests.handover import networks


def test_leaks_and_missing_calibration_are_said():
    config = Config(
        data=DataConfig(name="icpr2012"),
        model=ModelConfig(name="unet", width=0.01),
        evaluation=EvaluationConfig(tile_size=32, tile_overlap=8),
    )
    trained = networks.stirred(config, 0.1)
    test = {
        "mca": 0.5,
        "mca_ci95": [0.4, 0.6],
        "aca": 0.25,
        "aca_ci95": None,
        "pixel": {"Dice": 0.75, "Dice_ci95": [0.7, 0.8]},
        "num_examples": 14,
        "specimen_leakage": True,
        "leakage_note": "2 specimens on two sides",
    }
    text = card.render(trained, programs.make(trained), {"validation": test, "test": test}, ["* somewhere"])
    assert "Cells of one specimen stand on both sides" in text
    assert "do not take them for the chance that a reading is right" in text
    assert "| images | ACA | 0.250 | – |" in text
    assert "| pixels | Dice | 0.750 | 0.700 to 0.800 |" in text
    assert "MIVIA HEp-2" in text
    assert "synthetic" not in text
    trained.config.data.name = "folder"
    assert "the user's own images" in card.render(trained, programs.make(trained), {"test": test}, [])
    assert text.index("On test:") < text.index("On validation:")
