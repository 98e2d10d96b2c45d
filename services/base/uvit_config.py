"""Configuration of aMUSEd's transformer, a U-ViT. Imports no JAX."""

from dataclasses import dataclass

from services.masked.config import MaskedConfig


@dataclass(frozen=True, kw_only=True)
class UVitConfig(MaskedConfig):
    """A masked transformer between convolutional blocks (Patil et al. 2024, "aMUSEd").

    `hidden`, `layers`, `heads` and `mlp` are those of the transformer. A text has all `text_length`
    rows: the positions of CLIP, padding included, and its pooled vector as the last row.

    Attributes:
        image_size: Side in pixels of the pictures, which is among the conditions of the network.
        embedding: Width of the token embedding and of the last layer's input.
        channels: Width of the convolutional blocks.
        block_heads: Attention heads of the convolutional blocks.
        blocks: Convolutional blocks before the transformer, and after it.
        halved: Whether the grid has half the side in between.
        condition_width: Numbers that each micro-condition is embedded as.
    """

    image_size: int
    embedding: int
    channels: int
    block_heads: int
    blocks: int
    halved: bool
    condition_width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % self.block_heads:
            raise ValueError(
                f"channels {self.channels} must be a multiple of block_heads {self.block_heads}"
            )
        if self.channels == self.hidden:
            raise ValueError(
                f"channels must differ from hidden, got {self.channels} for both: a network of one "
                "width maps no text for its convolutional blocks"
            )
        if self.halved and self.grid % 2:
            raise ValueError(f"grid must be even where it is halved, got {self.grid}")
        if self.condition_width % 2:
            raise ValueError(f"condition_width must be even, got {self.condition_width}")
        if self.text_length < 2:
            raise ValueError(
                f"text_length must be at least 2, a position and the pooled vector, got "
                f"{self.text_length}"
            )

    @property
    def shortest_text(self) -> int:
        """Fewest rows that the embedding of a text has: all of them."""
        return self.text_length
