"""Configuration of the super-resolution transformer, over the high-resolution token grid."""

from dataclasses import dataclass

from services.masked.config import MaskedConfig

DEFAULT_STEPS = 8  # Muse, section 2.8


@dataclass(frozen=True, kw_only=True)
class SuperresConfig(MaskedConfig):
    """The super-resolution masked transformer (Muse, section 2.4 and Table 6).

    Half of the heads attend within blocks and half across, so `heads` is even.

    Attributes:
        low_grid: Tokens along one side of the low-resolution image.
        low_vocabulary: Number of codes of the low-resolution tokenizer.
        low_layers: Self-attention blocks over the low-resolution tokens.
        block: Side of a multi-axis block in tokens (not stated in the paper; HiT uses 8).
    """

    low_grid: int
    low_vocabulary: int
    low_layers: int
    block: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads % 2:
            raise ValueError(f"heads must be even, one half for each axis, got {self.heads}")
        if self.grid % self.block:
            raise ValueError(f"grid {self.grid} must be a multiple of block {self.block}")

    @property
    def low_tokens(self) -> int:
        """Tokens of one low-resolution image."""
        return self.low_grid**2
