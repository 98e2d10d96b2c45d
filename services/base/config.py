"""The shape of the base transformer, over the low-resolution token grid."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The base masked transformer (Muse, section 2.3 and Table 4).

    Attributes:
        grid: Tokens along one side of the image.
        vocabulary: Codes of the low-resolution tokenizer; the [MASK] id is `vocabulary`.
        hidden: Width of the residual stream.
        layers: Blocks of self-attention, cross-attention and MLP.
        heads: Attention heads of hidden / heads each (not stated in the paper).
        mlp: Width of the ungated feed-forward.
        text_hidden: Width of the text embedding.
        text_length: Text positions, padding included.
    """

    grid: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    text_hidden: int
    text_length: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid**2


# Muse-3B, Table 4: 48 layers of 2048, 3.22 B parameters in its blocks.
MUSE_3B = BaseConfig(
    grid=16,
    vocabulary=8192,
    hidden=2048,
    layers=48,
    heads=16,
    mlp=8192,
    text_hidden=4096,
    text_length=128,
)

# Muse-632M: the paper gives no shape; 36 layers of 1024 come to 0.63 B.
MUSE_632M = BaseConfig(
    grid=16,
    vocabulary=8192,
    hidden=1024,
    layers=36,
    heads=16,
    mlp=4096,
    text_hidden=4096,
    text_length=128,
)

DEMO = BaseConfig(
    grid=8,
    vocabulary=1024,
    hidden=256,
    layers=5,
    heads=8,
    mlp=1024,
    text_hidden=192,
    text_length=64,
)

DEMO256 = BaseConfig(
    grid=16,
    vocabulary=2048,
    hidden=320,
    layers=6,
    heads=10,
    mlp=1280,
    text_hidden=256,
    text_length=64,
)

TINY = BaseConfig(
    grid=4,
    vocabulary=32,
    hidden=16,
    layers=1,
    heads=2,
    mlp=32,
    text_hidden=16,
    text_length=32,
)
