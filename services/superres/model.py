"""The super-resolution transformer: low-resolution tokens and text in, high-resolution logits out.

An encoder of self-attention blocks encodes the low-resolution tokens, and the projected text is
appended to its output. The masked high-resolution grid attends to that context, and to itself by
multi-axis attention. There is no dropout: the paper states none.

Deviations: queries and keys are normalised (services/nn/attention.py); cross-attention starts with
equal query and key projections, so that a fresh model attends to the low-resolution tokens nearby.

Source: Muse, section 2.4, Figure 4 and Table 6; Zhao et al. 2021 for multi-axis attention.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.nn.attention import Context, MultiAxisAttention, SelfAttention
from services.nn.embeddings import GridEmbedding, LogitHead
from services.nn.options import LayerOptions
from services.nn.projection import Projection
from services.nn.transformer import (
    DecoderBlock,
    EncoderBlock,
    Norm,
    cross_keys_values,
    decode,
    decode_cfg_batch,
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
            config: Shape of the transformer.
            rngs: Source of the initial parameters.
            dtype: Type of the factors of matrix products: float32 or bfloat16. Norms, softmax and
                logits are float32.
            param_dtype: Type of the parameters.
        """
        self.config, self.dtype = config, dtype
        hidden, heads, mlp = config.hidden, config.heads, config.mlp
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        grid_embedding = partial(GridEmbedding, hidden=hidden, finest=config.low_grid, **options)

        def low_block(each: nnx.Rngs) -> EncoderBlock:
            own: LayerOptions = {**options, "rngs": each}
            return EncoderBlock(SelfAttention(hidden, heads, **own), hidden, mlp, **own)

        def block(each: nnx.Rngs) -> DecoderBlock:
            own: LayerOptions = {**options, "rngs": each}
            attention = MultiAxisAttention(hidden, heads, block=config.block, **own)
            built = DecoderBlock(attention, hidden, heads, mlp, **own)
            built.cross.share_initial_projection()
            return built

        self.low_embedding = grid_embedding(config.low_vocabulary, config.low_grid)
        self.low_blocks = stacked(low_block, config.low_layers, rngs)
        self.low_norm = Norm(hidden, **options)
        self.text_projection = Projection(config.text_hidden, hidden, use_bias=False, **options)
        self.text_norm = Norm(hidden, **options)
        self.embedding = grid_embedding(config.vocabulary + 1, config.grid)
        self.blocks = stacked(block, config.layers, rngs)
        self.head = LogitHead(hidden, config.vocabulary, **options)

    def context(
        self,
        low_tokens: Int[Array, "B Nl"],
        text: Float[Array, "B T Dt"],
        text_mask: Bool[Array, "B T"],
    ) -> Context:
        """Encodes the low-resolution tokens, appends the text, and makes keys and values, once.

        Args:
            low_tokens: Tokens of the low-resolution image, row by row, none masked.
            text: Embeddings of the text encoder.
            text_mask: True for text positions, False for the padding after them.
        """
        low = self.low_norm(encode(self.low_blocks, self.low_embedding(low_tokens)))
        projected = self.text_norm(self.text_projection(text.astype(self.dtype)))
        keys, values = cross_keys_values(self.blocks, jnp.concatenate([low, projected], axis=1))
        length = low_tokens.shape[1] + text_mask.sum(axis=-1, dtype=jnp.int32)
        return Context(keys, values, length)

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
            conditional: Rows that attend to the text. Unconditional rows still attend to the
                low-resolution tokens: training drops only the text (Muse, section 2.7), so the
                model was never trained without the low-resolution image.
        """
        # The text comes after the low-resolution tokens.
        length = jnp.where(conditional, context.length, self.config.low_tokens)
        gate = jnp.ones(tokens.shape[0], bool)
        visible = context._replace(length=length)
        return self.head.features(decode(self.blocks, self.embedding(tokens), visible, gate=gate))

    def cfg_batch_features(
        self, tokens: Int[Array, "B N"], context: Context
    ) -> Float[Array, "2*B N D"]:
        """Returns `features` of the conditional rows, then of the unconditional rows."""
        hidden = decode_cfg_batch(
            self.blocks,
            self.embedding(tokens),
            context,
            shared_context_length=self.config.low_tokens,
        )
        return self.head.features(hidden)

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns float32 logits by a linear map, of features before or after guidance."""
        return self.head.logits(features)
