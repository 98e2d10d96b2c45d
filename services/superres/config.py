"""The shape of the super-resolution transformer, over the high-resolution token grid."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SuperresConfig:
    """The super-resolution masked transformer (Muse, section 2.4 and Table 6).

    Attributes:
        low_grid: Tokens along one side of the low-resolution image.
        low_vocabulary: Codes of the low-resolution tokenizer.
        grid: Tokens along one side of the high-resolution image.
        vocabulary: Codes of the high-resolution tokenizer; the [MASK] id is `vocabulary`.
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


# Muse, Table 6: 0.74 B parameters.
MUSE = SuperresConfig(
    low_grid=16,
    low_vocabulary=8192,
    grid=64,
    vocabulary=8192,
    hidden=1024,
    layers=32,
    low_layers=16,
    heads=16,
    mlp=4096,
    block=8,
    text_hidden=4096,
    text_length=128,
)

DEMO = SuperresConfig(
    low_grid=8,
    low_vocabulary=1024,
    grid=16,
    vocabulary=1024,
    hidden=192,
    layers=4,
    low_layers=2,
    heads=6,
    mlp=768,
    block=8,
    text_hidden=192,
    text_length=64,
)

DEMO256 = SuperresConfig(
    low_grid=16,
    low_vocabulary=2048,
    grid=32,
    vocabulary=2048,
    hidden=192,
    layers=4,
    low_layers=2,
    heads=6,
    mlp=768,
    block=8,
    text_hidden=256,
    text_length=64,
)

TINY = SuperresConfig(
    low_grid=4,
    low_vocabulary=32,
    grid=8,
    vocabulary=32,
    hidden=16,
    layers=1,
    low_layers=1,
    heads=2,
    mlp=32,
    block=4,
    text_hidden=16,
    text_length=32,
)
