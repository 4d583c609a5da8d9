import pytest

from hep2jax.perf import chips


@pytest.mark.parametrize(
    ("device_kind", "name"),
    [
        ("TPU v4", "TPU v4"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5e", "TPU v5e"),
        ("TPU v5", "TPU v5p"),
        ("TPU v5p", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM"),
        ("NVIDIA H200", "NVIDIA H200 SXM"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100 40 GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80 GB SXM"),
        ("Tesla V100-SXM2-16GB", "NVIDIA V100 SXM2 16 GB"),
        ("NVIDIA L4", "NVIDIA L4"),
        ("tesla t4", "NVIDIA T4"),
    ],
)
def test_what_jax_calls_a_chip(device_kind, name):
    chip = chips.find(device_kind)
    assert chip is not None
    assert chip.name == name


@pytest.mark.parametrize("device_kind", ["cpu", "", "NVIDIA H100 PCIe", "NVIDIA L40S", "TPU v3"])
def test_a_chip_that_is_not_in_the_table_is_not_guessed(device_kind):
    assert chips.find(device_kind) is None


def test_no_name_and_no_device_kind_occurs_twice():
    names = [chip.name for chip in chips.CHIPS]
    kinds = [kind.lower() for chip in chips.CHIPS for kind in chip.device_kinds]
    assert len(set(names)) == len(names)
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("chip", chips.CHIPS, ids=lambda chip: chip.name)
def test_units(chip):
    """FLOP/s, bytes and bytes/s, not TFLOP/s or GB: real chips need 20 to 600 operations for a byte of memory."""
    for dtype in ("bfloat16", "float32"):
        assert 15 < chip.peak_flops(dtype) / chip.hbm_bandwidth < 600
    assert 0.005 < chip.hbm_bytes / chip.hbm_bandwidth < 0.2  # seconds to read all of the memory
    assert 0.05 < chip.interconnect_bandwidth / chip.hbm_bandwidth < 0.7


def test_the_peak_is_of_the_units_that_the_dtype_runs_on():
    h100, v5e, v100 = (chips.find(kind) for kind in ("NVIDIA H100 80GB HBM3", "TPU v5e", "Tesla V100-SXM2-16GB"))
    assert h100.peak_flops("bfloat16") == 989.4e12
    assert h100.peak_flops("float32") == 494.7e12  # TensorFloat-32, not the 67 of the float32 units
    assert v5e.peak_flops("float32") == v5e.peak_flops("bfloat16") == 197e12
    assert v100.peak_flops("bfloat16") == 15.7e12  # no bfloat16 there: computed in float32
