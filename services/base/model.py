"""The base transformer: masked low-resolution tokens and a text embedding in, logits out.

Token and position embeddings, then blocks of self-attention, cross-attention to the projected
text and an ungated MLP, then an MLP head. There is no dropout: the paper states none.

Deviation: queries and keys are normalised (services/nn/attention.py).

Source: Muse, section 2.3 and Table 4.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.base.config import BaseConfig
from services.nn.attention import Context, SelfAttention
from services.nn.embeddings import GridEmbedding, LogitHead
from services.nn.options import LayerOptions
from services.nn.projection import Projection
from services.nn.transformer import (
    DecoderBlock,
    Norm,
    cross_keys_values,
    decode,
    decode_cfg_batch,
    stacked,
)


class BaseTransformer(nnx.Module):
    """Predicts the masked tokens of a low-resolution image from its known tokens and a text."""

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
            config: Shape of the transformer.
            rngs: Source of the initial parameters.
            dtype: Type of the factors of matrix products: float32 or bfloat16. Norms, softmax and
                logits are float32.
            param_dtype: Type of the parameters.
        """
        self.config, self.dtype = config, dtype
        hidden, heads = config.hidden, config.heads
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.embedding = GridEmbedding(
            config.vocabulary + 1, config.grid, hidden, finest=config.grid, **options
        )
        self.text_projection = Projection(config.text_hidden, hidden, use_bias=False, **options)
        self.text_norm = Norm(hidden, **options)

        def block(each: nnx.Rngs) -> DecoderBlock:
            own: LayerOptions = {**options, "rngs": each}
            attention = SelfAttention(hidden, heads, **own)
            return DecoderBlock(attention, hidden, heads, config.mlp, **own)

        self.blocks = stacked(block, config.layers, rngs)
        self.head = LogitHead(hidden, config.vocabulary, **options)

    def context(self, text: Float[Array, "B T Dt"], text_mask: Bool[Array, "B T"]) -> Context:
        """Projects the text and makes every layer's cross-attention keys and values, once.

        Args:
            text: Embeddings of the text encoder.
            text_mask: True for text positions, False for the padding after them.
        """
        projected = self.text_norm(self.text_projection(text.astype(self.dtype)))
        keys, values = cross_keys_values(self.blocks, projected)
        return Context(keys, values, text_mask.sum(axis=-1, dtype=jnp.int32))

    def logits(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N V"]:
        """Returns the logits of every token; arguments as of `features`."""
        return self.last_layer(self.features(tokens, context, conditional))

    def features(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns the input of the last layer.

        Args:
            tokens: Ids, or `config.vocabulary` where a token is masked.
            context: From `context`, with one row for each row of tokens.
            conditional: Rows that attend to the text. The cross-attention of unconditional rows is
                gated to zero, which leaves self-attention among the image's tokens (Muse, section
                2.7).
        """
        hidden = decode(self.blocks, self.embedding(tokens), context, gate=conditional)
        return self.head.features(hidden)

    def cfg_batch_features(
        self, tokens: Int[Array, "B N"], context: Context
    ) -> Float[Array, "2*B N D"]:
        """Returns `features` of the conditional rows, then of the unconditional rows."""
        embedded = self.embedding(tokens)
        hidden = decode_cfg_batch(self.blocks, embedded, context, shared_context_length=0)
        return self.head.features(hidden)

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns float32 logits by a linear map, of features before or after guidance."""
        return self.head.logits(features)
