"""Public peak numbers of the chips a stage may run on, and the floor they set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One accelerator, at its published peak.

    Attributes:
        name: What `--chip` calls it.
        label: Its full name.
        peak_flops_per_s: Dense matrix products in bfloat16, without sparsity.
        bandwidth_bytes_per_s: Of the memory that holds the weights.
        memory_bytes: Of that memory.
        source: Where the three numbers were published.
    """

    name: str
    label: str
    peak_flops_per_s: float
    bandwidth_bytes_per_s: float
    memory_bytes: float
    source: str

    def floor_ms(self, flops: int, least_bytes: int) -> float:
        """Returns the least time: arithmetic and traffic overlap wholly, the longer one counts."""
        arithmetic_s = flops / self.peak_flops_per_s
        traffic_s = least_bytes / self.bandwidth_bytes_per_s
        return 1e3 * max(arithmetic_s, traffic_s)


_TPU_DOCS = "https://docs.cloud.google.com/tpu/docs"
_NOMINAL = "nominal: 16 cores x 3.0 GHz x 32 FLOP a cycle, 8 channels of 32 GB DDR4-3200"
_TABLE = (  # FLOP/s, bytes/s and bytes
    # The data sheet states 1,979 TFLOPS with sparsity: dense is half of that.
    ("h200", "NVIDIA H200 SXM", 989.5e12, 4.8e12, 141e9, "NVIDIA H200 Tensor Core GPU data sheet"),
    ("v4", "Cloud TPU v4", 275e12, 1200e9, 32e9, f"{_TPU_DOCS}/v4"),
    ("v5e", "Cloud TPU v5e", 197e12, 819e9, 16e9, f"{_TPU_DOCS}/v5e"),
    ("v6e", "Cloud TPU v6e", 918e12, 1638e9, 32e9, f"{_TPU_DOCS}/v6e"),
    # Nominal, not measured: 16 cores x 3.0 GHz x two 256-bit fused multiply-adds a cycle
    # (32 FLOP) in float32, and eight channels of DDR4-3200 at 25.6 GB/s with 32 GB each.
    ("cpu", "nominal 16-core server CPU", 16 * 3.0e9 * 32, 8 * 25.6e9, 256e9, _NOMINAL),
)
CHIPS = {row[0]: Chip(*row) for row in _TABLE}


def chip(name: str) -> Chip:
    """Returns the chip of that name.

    Raises:
        ValueError: no chip has that name.
    """
    if name not in CHIPS:
        raise ValueError(f"unknown chip {name!r}: expected one of {', '.join(CHIPS)}")
    return CHIPS[name]
