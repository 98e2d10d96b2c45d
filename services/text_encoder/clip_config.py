"""Configuration of CLIP's text encoder."""

from dataclasses import dataclass

LEAST = {"layers": 2, "maximum_length": 2}  # of all other numbers 1


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """The text encoder of a CLIP (Radford et al. 2021, section 2.4).

    Attributes:
        vocabulary_size: Rows of the token embedding.
        hidden: Width of the residual stream, and of the pooled vector.
        layers: Transformer layers, at least 2: the last one makes the pooled vector alone.
        heads: Attention heads of hidden / heads each.
        mlp: Width of the feed-forward.
        maximum_length: Positions of every text, padding included.
        quick_gelu: Whether the GELU is x sigmoid(1.702 x), as OpenAI's is, or exact.
        begin_id: Id before a text.
        end_id: Id after it, where the pooled vector is taken from, and of what is no token.
        padding_id: Id of the positions after that.
    """

    vocabulary_size: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    maximum_length: int
    quick_gelu: bool
    begin_id: int
    end_id: int
    padding_id: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name.endswith("_id") else LEAST.get(name, 1)
            if not isinstance(value, bool) and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        highest = max(self.begin_id, self.end_id, self.padding_id)
        if highest >= self.vocabulary_size:
            raise ValueError(f"ids must be less than {self.vocabulary_size}, got {highest}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")

    @property
    def shortest_bucket(self) -> int:
        """Positions of the shortest text that is computed: all of them."""
        return self.maximum_length
