"""Configuration of the super-resolution transformer, over the high-resolution token grid."""

from dataclasses import dataclass

DEFAULT_STEPS = 8  # Muse, section 2.8


@dataclass(frozen=True, kw_only=True)
class SuperresConfig:
    """The super-resolution masked transformer (Muse, section 2.4 and Table 6).

    Attributes:
        low_grid: Tokens along one side of the low-resolution image.
        low_vocabulary: Number of codes of the low-resolution tokenizer.
        grid: Tokens along one side of the high-resolution image.
        vocabulary: Number of codes of the high-resolution tokenizer; the [MASK] id is this number.
        hidden: Width of the residual stream.
        layers: Multi-axis blocks over the high-resolution grid.
        low_layers: Self-attention blocks over the low-resolution tokens.
        heads: Attention heads, an even number: half attend within blocks, half across.
        mlp: Width of the ungated feed-forward.
        block: Side of a multi-axis block in tokens (not stated in the paper; HiT uses 8).
        text_hidden: Width of the text embedding.
        text_length: Text positions, padding included.
    """

    low_grid: int
    low_vocabulary: int
    grid: int
    vocabulary: int
    hidden: int
    layers: int
    low_layers: int
    heads: int
    mlp: int
    block: int
    text_hidden: int
    text_length: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")
        if self.heads % 2:
            raise ValueError(f"heads must be even, one half for each axis, got {self.heads}")
        if self.grid % self.block:
            raise ValueError(f"grid {self.grid} must be a multiple of block {self.block}")

    @property
    def tokens(self) -> int:
        """Tokens of one high-resolution image."""
        return self.grid**2

    @property
    def low_tokens(self) -> int:
        """Tokens of one low-resolution image."""
        return self.low_grid**2
