"""Configuration that every masked transformer has. Imports no JAX."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """The shape of a masked transformer over a square grid of tokens.

    Attributes:
        grid: Tokens along one side of the image.
        vocabulary: Number of codes of the image's tokenizer; the [MASK] id is this number.
        hidden: Width of the residual stream.
        layers: Blocks of self-attention, cross-attention and MLP over the grid.
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
            if not isinstance(value, bool) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid**2

    @property
    def shortest_text(self) -> int:
        """Fewest rows that the embedding of a text has."""
        return 1
