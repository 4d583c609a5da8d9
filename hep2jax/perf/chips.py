"""Peak rates of accelerators, as published by their vendors."""

import dataclasses

_TERA, _GIGA, _GIB = 10**12, 10**9, 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Published peak rates of one chip, which is one JAX device, for dense matrices (without 2:4 sparsity)."""

    name: str
    device_kinds: tuple[str, ...]
    """Values of `jax.Device.device_kind` for this chip."""
    bf16_flops: float | None = None
    """FLOP/s of bfloat16 matrix products; None: not supported by the hardware, so XLA computes in float32."""
    tf32_flops: float | None = None
    """FLOP/s of TensorFloat-32 matrix products, if the chip supports them."""
    fp32_flops: float | None = None
    """FLOP/s of float32 arithmetic; None: not published."""
    hbm_bytes: int
    """Memory of the device. Vendors give GB, but the devices report about the same number of GiB."""
    hbm_bandwidth: float
    """Bandwidth between chip and memory in bytes/s."""
    interconnect: str
    """Name of the link between chips."""
    interconnect_bandwidth: float
    """Total bandwidth of the links of a chip in bytes/s, sum of both directions."""

    def peak_flops(self, dtype: str) -> float | None:
        """Peak FLOP/s of matrix products in a compute dtype at JAX's default precision; None if not published.

        At this precision, TPUs round float32 factors to bfloat16, and NVIDIA chips since Ampere use TensorFloat-32.
        """
        if dtype == "bfloat16":
            return self.bf16_flops or self.fp32_flops
        return self.tf32_flops or self.fp32_flops or self.bf16_flops


def find(device_kind: str) -> Chip | None:
    """The chip with this `jax.Device.device_kind`, in any case; None if it is not in the table, as for CPUs."""
    return _BY_DEVICE_KIND.get(device_kind.lower())


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "bidirectional ICI bandwidth per chip". The page
# of v4 gives no ICI bandwidth: six links of 50 GB/s in each direction are from Jouppi et al. 2023 (arXiv 2304.01433),
# table 4. The two cores of v4 and v5p are one JAX device ("megacore").
_TPUS = (
    Chip(
        name="TPU v4",
        device_kinds=("TPU v4",),
        bf16_flops=275 * _TERA,
        hbm_bytes=32 * _GIB,
        hbm_bandwidth=1200 * _GIGA,
        interconnect="ICI, 3D torus",
        interconnect_bandwidth=600 * _GIGA,
    ),
    Chip(
        name="TPU v5e",
        device_kinds=("TPU v5 lite", "TPU v5e"),
        bf16_flops=197 * _TERA,
        hbm_bytes=16 * _GIB,
        hbm_bandwidth=819 * _GIGA,
        interconnect="ICI, 2D torus",
        interconnect_bandwidth=400 * _GIGA,
    ),
    Chip(
        name="TPU v5p",
        device_kinds=("TPU v5", "TPU v5p"),
        bf16_flops=459 * _TERA,
        hbm_bytes=95 * _GIB,
        hbm_bandwidth=2765 * _GIGA,
        interconnect="ICI, 3D torus",
        interconnect_bandwidth=1200 * _GIGA,
    ),
    Chip(
        name="TPU v6e",
        device_kinds=("TPU v6 lite", "TPU v6e"),
        bf16_flops=918 * _TERA,
        hbm_bytes=32 * _GIB,
        hbm_bandwidth=1638 * _GIGA,
        interconnect="ICI, 2D torus",
        interconnect_bandwidth=800 * _GIGA,
    ),
)

# NVIDIA's data sheets: "H100 Tensor Core GPU" (SXM column), "H200 Tensor Core GPU" (SXM), "A100 Tensor Core GPU"
# (2021; the 2020 edition for 40 GB), "Tesla V100" (SXM2), "L4 Tensor Core GPU", "T4". If a sheet gives only rates "with
# sparsity", half of them are used. V100 and T4 have float16 tensor cores (125 and 65 TFLOP/s) but no bfloat16.
_GPUS = (
    Chip(
        name="NVIDIA H100 SXM",
        device_kinds=("NVIDIA H100 80GB HBM3",),
        bf16_flops=989.4 * _TERA,
        tf32_flops=494.7 * _TERA,
        fp32_flops=67 * _TERA,
        hbm_bytes=80 * _GIB,
        hbm_bandwidth=3350 * _GIGA,
        interconnect="NVLink 4",
        interconnect_bandwidth=900 * _GIGA,
    ),
    Chip(
        name="NVIDIA H200 SXM",
        device_kinds=("NVIDIA H200",),
        bf16_flops=989.4 * _TERA,
        tf32_flops=494.7 * _TERA,
        fp32_flops=67 * _TERA,
        hbm_bytes=141 * _GIB,
        hbm_bandwidth=4800 * _GIGA,
        interconnect="NVLink 4",
        interconnect_bandwidth=900 * _GIGA,
    ),
    Chip(
        name="NVIDIA A100 40 GB",
        device_kinds=("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        bf16_flops=312 * _TERA,
        tf32_flops=156 * _TERA,
        fp32_flops=19.5 * _TERA,
        hbm_bytes=40 * _GIB,
        hbm_bandwidth=1555 * _GIGA,
        interconnect="NVLink 3",
        interconnect_bandwidth=600 * _GIGA,
    ),
    Chip(
        name="NVIDIA A100 80 GB SXM",
        device_kinds=("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        bf16_flops=312 * _TERA,
        tf32_flops=156 * _TERA,
        fp32_flops=19.5 * _TERA,
        hbm_bytes=80 * _GIB,
        hbm_bandwidth=2039 * _GIGA,
        interconnect="NVLink 3",
        interconnect_bandwidth=600 * _GIGA,
    ),
    Chip(
        name="NVIDIA A100 80 GB PCIe",
        device_kinds=("NVIDIA A100 80GB PCIe",),
        bf16_flops=312 * _TERA,
        tf32_flops=156 * _TERA,
        fp32_flops=19.5 * _TERA,
        hbm_bytes=80 * _GIB,
        hbm_bandwidth=1935 * _GIGA,
        interconnect="NVLink 3 bridge",
        interconnect_bandwidth=600 * _GIGA,
    ),
    Chip(
        name="NVIDIA V100 SXM2 16 GB",
        device_kinds=("Tesla V100-SXM2-16GB",),
        fp32_flops=15.7 * _TERA,
        hbm_bytes=16 * _GIB,
        hbm_bandwidth=900 * _GIGA,
        interconnect="NVLink 2",
        interconnect_bandwidth=300 * _GIGA,
    ),
    Chip(
        name="NVIDIA V100 SXM2 32 GB",
        device_kinds=("Tesla V100-SXM2-32GB",),
        fp32_flops=15.7 * _TERA,
        hbm_bytes=32 * _GIB,
        hbm_bandwidth=900 * _GIGA,
        interconnect="NVLink 2",
        interconnect_bandwidth=300 * _GIGA,
    ),
    Chip(
        name="NVIDIA L4",
        device_kinds=("NVIDIA L4",),
        bf16_flops=121 * _TERA,
        tf32_flops=60 * _TERA,
        fp32_flops=30.3 * _TERA,
        hbm_bytes=24 * _GIB,
        hbm_bandwidth=300 * _GIGA,
        interconnect="PCIe 4.0 x16",
        interconnect_bandwidth=64 * _GIGA,
    ),
    Chip(
        name="NVIDIA T4",
        device_kinds=("Tesla T4", "NVIDIA T4"),
        fp32_flops=8.1 * _TERA,
        hbm_bytes=16 * _GIB,
        hbm_bandwidth=300 * _GIGA,
        interconnect="PCIe 3.0 x16",
        interconnect_bandwidth=32 * _GIGA,
    ),
)

CHIPS = _TPUS + _GPUS
_BY_DEVICE_KIND = {kind.lower(): chip for chip in CHIPS for kind in chip.device_kinds}
