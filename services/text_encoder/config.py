"""Configuration of the frozen T5 encoder."""

from dataclasses import dataclass

SHORTEST_BUCKET = 16


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A T5 encoder (Raffel et al. 2020; Shazeer 2020, "GLU Variants"); by default a T5 v1.1.

    Attributes:
        vocabulary_size: Rows of the token embedding.
        hidden: Width of the residual stream.
        layers: Transformer blocks.
        heads: Attention heads; heads * head_dim may differ from hidden.
        head_dim: Width of one head.
        mlp: Width of the feed-forward.
        relative_buckets: Buckets of the relative position bias.
        relative_max_distance: Distance in tokens from which all positions share a bucket.
        maximum_length: Longest prompt in tokens, the end-of-sequence token included.
        gated: Whether the feed-forward is a gated GELU, as in v1.1, or a ReLU, as in T5 1.0.
        bias_in_each_layer: Whether each layer has a position bias of its own, as in UMT5 (Chung et
            al. 2023, "UniMax", section 4.1), or all share one.
    """

    vocabulary_size: int
    hidden: int
    layers: int
    heads: int
    head_dim: int
    mlp: int
    relative_buckets: int = 32
    relative_max_distance: int = 128
    maximum_length: int = 128
    gated: bool = True
    bias_in_each_layer: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.relative_buckets % 4:
            raise ValueError(
                f"relative_buckets must be a multiple of 4, got {self.relative_buckets}"
            )

    @property
    def shortest_bucket(self) -> int:
        """Positions that the shortest texts are padded to."""
        return min(SHORTEST_BUCKET, self.maximum_length)


# T5 v1.1 XXL's encoder, 4.76 B parameters; the paper's text encoder (Muse, section 2.1).
T5_XXL = TextEncoderConfig(
    vocabulary_size=32_128, hidden=4096, layers=24, heads=64, head_dim=64, mlp=10_240
)
