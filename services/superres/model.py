"""The super-resolution transformer: a low-resolution picture and text in, finer tokens out.

The low-resolution tokens pass through self-attention blocks of their own and are concatenated with
the projected text. The masked high-resolution grid attends to that, and to itself by multi-axis
attention. No dropout: the paper states none.

Deviations: queries and keys are normalised (services/nn/attention.py); cross-attention starts with
equal query and key projections, so that a fresh model looks at the low-resolution tokens near it.

Source: Muse, section 2.4, Figure 4 and Table 6; Zhao et al. 2021 for multi-axis attention.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.nn.attention import Context, MultiAxisAttention, SelfAttention
from services.nn.embeddings import GridEmbedding, LogitHead
from services.nn.projection import Projection
from services.nn.transformer import (
    DecoderBlock,
    EncoderBlock,
    Norm,
    cross_keys_values,
    decode,
    decode_both,
    encode,
    stacked,
)
from services.superres.config import SuperresConfig


class SuperresTransformer(nnx.Module):
    """Predicts the masked tokens of a high-resolution image from low-resolution ones and text."""

    def __init__(
        self,
        config: SuperresConfig,
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

        def low_block(each: nnx.Rngs) -> EncoderBlock:
            attention = SelfAttention(hidden, config.heads, rngs=each, **kinds)
            return EncoderBlock(attention, hidden, config.mlp, rngs=each, **kinds)

        def block(each: nnx.Rngs) -> DecoderBlock:
            attention = MultiAxisAttention(
                hidden, config.heads, block=config.block, rngs=each, **kinds
            )
            built = DecoderBlock(attention, hidden, config.heads, config.mlp, rngs=each, **kinds)
            built.cross.share_initial_projection()
            return built

        places: dict[str, Any] = {"finest": config.low_grid, "rngs": rngs, **kinds}
        self.low_embedding = GridEmbedding(config.low_vocabulary, config.low_grid, hidden, **places)
        self.low_blocks = stacked(low_block, config.low_layers, rngs)
        self.low_norm = Norm(hidden, rngs=rngs, **kinds)
        self.text_projection = Projection(
            config.text_hidden, hidden, use_bias=False, rngs=rngs, **kinds
        )
        self.text_norm = Norm(hidden, rngs=rngs, **kinds)
        self.embedding = GridEmbedding(config.vocabulary + 1, config.grid, hidden, **places)
        self.blocks = stacked(block, config.layers, rngs)
        self.head = LogitHead(hidden, config.vocabulary, rngs=rngs, **kinds)

    def context(
        self,
        low_tokens: Int[Array, "B Nl"],
        text: Float[Array, "B T Dt"],
        text_mask: Bool[Array, "B T"],
    ) -> Context:
        """Encodes the low-resolution tokens, appends the text, and makes keys and values, once.

        Args:
            low_tokens: The low-resolution picture, row by row, none masked.
            text: Embeddings of the text encoder.
            text_mask: True where there is text, False where there is padding, which comes last.
        """
        low = self.low_norm(encode(self.low_blocks, self.low_embedding(low_tokens)))
        projected = self.text_norm(self.text_projection(text.astype(self.dtype)))
        keys, values = cross_keys_values(self.blocks, jnp.concatenate([low, projected], axis=1))
        length = low_tokens.shape[1] + text_mask.sum(axis=-1, dtype=jnp.int32)
        return Context(keys, values, length)

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
            conditional: Rows that hear the text. In the others the text's positions are masked
                and the low-resolution tokens stay: training drops the text alone (Muse, section
                2.7), so a model without its low-resolution picture was never trained.
        """
        # The text comes after the low-resolution tokens.
        length = jnp.where(conditional, context.length, self.config.low_tokens)
        gate = jnp.ones(tokens.shape[0], bool)
        seen = context._replace(length=length)
        return self.head.features(decode(self.blocks, self.embedding(tokens), seen, gate=gate))

    def both_features(self, tokens: Int[Array, "B N"], context: Context) -> Float[Array, "2*B N D"]:
        """Returns `features` of rows that hear the text, then of the same rows without it."""
        embedded, common = self.embedding(tokens), self.config.low_tokens
        return self.head.features(decode_both(self.blocks, embedded, context, common=common))

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns the logits of features, guided or not: a linear map."""
        return self.head.logits(features)
