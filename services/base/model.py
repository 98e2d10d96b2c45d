"""The base transformer: masked low-resolution tokens and text in, logits out.

Token and position embeddings, then blocks of self-attention, cross-attention to the projected
text and an ungated MLP, then an MLP head. No dropout: the paper states none.

Deviations: queries and keys are normalised (services/nn/attention.py).

Source: Muse, section 2.3 and Table 4.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.base.config import BaseConfig
from services.nn.attention import Context, SelfAttention
from services.nn.embeddings import GridEmbedding, LogitHead
from services.nn.projection import Projection
from services.nn.transformer import (
    DecoderBlock,
    Norm,
    cross_keys_values,
    decode,
    decode_both,
    stacked,
)


class BaseTransformer(nnx.Module):
    """Predicts the masked tokens of a low-resolution image from the others and a text."""

    def __init__(
        self,
        config: BaseConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Builds the transformer.

        Args:
            config: Its shape.
            rngs: Source of the initial parameters.
            dtype: Of the matrix products: float32 or bfloat16. Norms, softmax and logits are
                float32.
            param_dtype: Of the parameters.
        """
        self.config, self.dtype = config, dtype
        kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        hidden = config.hidden
        self.embedding = GridEmbedding(
            config.vocabulary + 1, config.grid, hidden, finest=config.grid, rngs=rngs, **kinds
        )
        self.text_projection = Projection(
            config.text_hidden, hidden, use_bias=False, rngs=rngs, **kinds
        )
        self.text_norm = Norm(hidden, rngs=rngs, **kinds)

        def block(each: nnx.Rngs) -> DecoderBlock:
            attention = SelfAttention(hidden, config.heads, rngs=each, **kinds)
            return DecoderBlock(attention, hidden, config.heads, config.mlp, rngs=each, **kinds)

        self.blocks = stacked(block, config.layers, rngs)
        self.head = LogitHead(hidden, config.vocabulary, rngs=rngs, **kinds)

    def context(self, text: Float[Array, "B T Dt"], text_mask: Bool[Array, "B T"]) -> Context:
        """Projects the text and makes every layer's cross-attention keys and values, once.

        Args:
            text: Embeddings of the text encoder.
            text_mask: True where there is text, False where there is padding, which comes last.
        """
        projected = self.text_norm(self.text_projection(text.astype(self.dtype)))
        keys, values = cross_keys_values(self.blocks, projected)
        return Context(keys, values, text_mask.sum(axis=-1, dtype=jnp.int32))

    def logits(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N V"]:
        """Predicts every token; the arguments are those of `features`."""
        return self.last_layer(self.features(tokens, context, conditional))

    def features(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns what the last layer takes.

        Args:
            tokens: Ids, or `config.vocabulary` where a token is masked.
            context: From `context`, of as many rows.
            conditional: Rows that hear the text. In the others the output of cross-attention is
                zero, which leaves self-attention among the image's tokens (Muse, section 2.7).
        """
        hidden = decode(self.blocks, self.embedding(tokens), context, gate=conditional)
        return self.head.features(hidden)

    def both_features(self, tokens: Int[Array, "B N"], context: Context) -> Float[Array, "2*B N D"]:
        """Returns `features` of rows that hear the text, then of the same rows without it."""
        hidden = decode_both(self.blocks, self.embedding(tokens), context, common=0)
        return self.head.features(hidden)

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns the logits of features, guided or not: a linear map."""
        return self.head.logits(features)
