"""aMUSEd's transformer, a U-ViT: masked tokens and CLIP's embedding of a text in, logits out.

Token embedding, convolutional blocks, transformer layers, convolutional blocks, and a layer to the
logits. A grid of 32 x 32 tokens (512 px) has half the side from before the first block to after the
last one. No embedding says where a token is: the convolutions see its neighbours and the border.

Source: Patil et al. 2024, "aMUSEd: An Open MUSE Reproduction"; huggingface/diffusers,
models/unets/uvit_2d.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.base.uvit_config import UVitConfig
from services.base.uvit_layers import (
    ConvolutionalBlock,
    Doubling,
    Halving,
    LayerConditions,
    Linear,
    TransformerLayer,
)
from services.nn.options import LayerOptions
from services.nn.transformer import RMSNorm, scan_layers, stacked

# Conditions of the picture to draw, besides its width and height: crop and aesthetic score. Source:
# huggingface/diffusers, pipelines/amused/pipeline_amused.py, the defaults.
CROP = (0, 0)
AESTHETIC_SCORE = 6
LONGEST_WAVE = 10_000
NO_TEXT = "no_text"  # a parameter that never learns: what the encoder makes of the empty text


class TextConditions(NamedTuple):
    """What all layers get of a text.

    Attributes:
        down: The convolutional blocks before the transformer.
        layers: The transformer's layers.
        up: The convolutional blocks after it.
    """

    down: LayerConditions
    layers: LayerConditions
    up: LayerConditions


class UVitContext(NamedTuple):
    """The context of a decode; the second axis of every array is that of the rows.

    Attributes:
        text: Of the prompt.
        no_text: Of the empty text, which the unconditional branch of guidance has.
    """

    text: TextConditions
    no_text: TextConditions


class UVit(nnx.Module):
    """Predicts the masked tokens of an image from its known tokens and a text.

    Deviation: `vocabulary` is the id of [MASK] here. aMUSEd's is 8255 of 8256, and the rows of the
    embedding between the codes and that one were never trained; the import leaves them out.
    """

    def __init__(
        self,
        config: UVitConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Builds the network.

        Args:
            config: Shape of the network.
            rngs: Source of the initial parameters.
            dtype: Type of the factors of matrix products: float32 or bfloat16. Norms, softmax and
                logits are float32.
            param_dtype: Type of the parameters.
        """
        self.config, self.dtype = config, dtype
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        hidden, channels, text = config.hidden, config.channels, config.text_hidden

        def drawn(*shape: int) -> nnx.Param[Array]:
            return nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype))

        self.no_text = drawn(config.text_length, text)
        self.text_projection = Linear(text, hidden, **options)
        self.text_norm = RMSNorm(hidden, **options)
        conditions = text + len(_micro_conditions(config))
        self.condition_in = Linear(conditions, hidden, **options)
        self.condition_out = Linear(hidden, hidden, **options)

        self.tokens = drawn(config.vocabulary + 1, config.embedding)
        self.token_norm = RMSNorm(config.embedding, **options)
        self.token_projection = Linear(config.embedding, channels, **options)
        self.halving = Halving(channels, **options) if config.halved else None

        def block(each: nnx.Rngs) -> ConvolutionalBlock:
            own: LayerOptions = {**options, "rngs": each}
            return ConvolutionalBlock(channels, config.block_heads, hidden, **own)

        def layer(each: nnx.Rngs) -> TransformerLayer:
            own: LayerOptions = {**options, "rngs": each}
            return TransformerLayer(hidden, config.heads, config.mlp, **own)

        self.down_blocks = stacked(block, config.blocks, rngs)
        self.input_norm = RMSNorm(channels, **options)
        self.input = Linear(channels, hidden, **options)
        self.blocks = stacked(layer, config.layers, rngs)
        self.output_norm = RMSNorm(hidden, **options)
        self.output = Linear(hidden, channels, **options)
        self.up_blocks = stacked(block, config.blocks, rngs)
        self.doubling = Doubling(channels, **options) if config.halved else None
        self.head = Linear(channels, config.embedding, **options)
        self.head_norm = RMSNorm(config.embedding, **options)
        self.logits_of_head = Linear(
            config.embedding, config.vocabulary, preferred_element_type=jnp.float32, **options
        )

    def context(self, text: Float[Array, "B T Dt"], text_mask: Bool[Array, "B T"]) -> UVitContext:
        """Computes, once per decode, what the layers get of the text and of no text.

        Args:
            text: Embeddings of CLIP, the pooled vector as the last row.
            text_mask: True for all positions of a row; False for all of a row without text.
        """
        no_text = jnp.broadcast_to(self.no_text[...].astype(text.dtype), text.shape)
        given = jnp.where(text_mask.any(axis=-1)[:, None, None], text, no_text)
        return UVitContext(text=self._conditions(given), no_text=self._conditions(no_text))

    def _conditions(self, text: Float[Array, "B T Dt"]) -> TextConditions:
        positions, pooled = text[:, :-1], text[:, -1]
        micro = jnp.asarray(_micro_conditions(self.config))
        given = jnp.concatenate([pooled, jnp.tile(micro, (len(pooled), 1))], axis=-1)
        condition = self.condition_out(jax.nn.silu(self.condition_in(given.astype(self.dtype))))
        encoded = self.text_norm(self.text_projection(positions.astype(self.dtype)))

        def of_stack(blocks: ConvolutionalBlock | TransformerLayer) -> LayerConditions:
            each = scan_layers(
                blocks, lambda layer, _: (None, layer.conditions(encoded, condition)), None
            )
            return LayerConditions(*each[1])

        return TextConditions(
            down=of_stack(self.down_blocks),
            layers=of_stack(self.blocks),
            up=of_stack(self.up_blocks),
        )

    def logits(
        self, tokens: Int[Array, "B N"], context: UVitContext, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N V"]:
        """Returns the logits of every token; arguments as of `features`."""
        return self.last_layer(self.features(tokens, context, conditional))

    def features(
        self, tokens: Int[Array, "B N"], context: UVitContext, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns the input of the last layer.

        Args:
            tokens: Ids, or `config.vocabulary` where a token is masked.
            context: From `context`, with one row for each row of tokens.
            conditional: Rows with the text; the others have the empty text.
        """

        def chosen(text: Array, no_text: Array) -> Array:
            rows = conditional.reshape(-1, *(1,) * (text.ndim - 2))
            return jnp.where(rows, text, no_text)

        return self._features(tokens, jax.tree.map(chosen, context.text, context.no_text))

    def cfg_batch_features(
        self, tokens: Int[Array, "B N"], context: UVitContext
    ) -> Float[Array, "2*B N D"]:
        """Returns `features` of the conditional rows, then of the unconditional rows."""
        both = jax.tree.map(
            lambda text, no_text: jnp.concatenate([text, no_text], axis=1), *context
        )
        return self._features(jnp.concatenate([tokens, tokens]), both)

    def _features(
        self, tokens: Int[Array, "B N"], conditions: TextConditions
    ) -> Float[Array, "B N D"]:
        embedded = self.token_norm(self.tokens[...][tokens].astype(self.dtype))
        hidden = self.token_projection(embedded)
        if self.halving is not None:
            hidden = self.halving(hidden)
        hidden = _through(self.down_blocks, hidden, conditions.down)
        hidden = self.input(self.input_norm(hidden))
        hidden = _through(self.blocks, hidden, conditions.layers)
        hidden = self.output(self.output_norm(hidden))
        hidden = _through(self.up_blocks, hidden, conditions.up)
        if self.doubling is not None:
            hidden = self.doubling(hidden)
        return self.head_norm(self.head(hidden))

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns float32 logits by a linear map, of features before or after guidance."""
        return self.logits_of_head(features)


def _through(
    blocks: ConvolutionalBlock | TransformerLayer,
    tokens: Float[Array, "B N D"],
    conditions: LayerConditions,
) -> Float[Array, "B N D"]:
    """Runs a stack of layers, each with its own conditions."""

    def step(
        layer: ConvolutionalBlock | TransformerLayer, carry: Array, *own: Array
    ) -> tuple[Array, None]:
        return layer(carry, LayerConditions(*own)), None

    return scan_layers(blocks, step, tokens, *conditions)[0]


def _micro_conditions(config: UVitConfig) -> Float[np.ndarray, " M"]:
    """Returns width, height, crop and aesthetic score as cosines and sines of each.

    Source: Podell et al. 2023, "SDXL", section 2.2; huggingface/diffusers, models/embeddings.py,
    `get_timestep_embedding`.
    """
    values = np.array([config.image_size, config.image_size, *CROP, AESTHETIC_SCORE], np.float32)
    half = config.condition_width // 2
    # float32 throughout, as the released weights were trained with it.
    frequencies = np.exp(
        -np.float32(np.log(LONGEST_WAVE)) * np.arange(half, dtype=np.float32) / half
    )
    angles = values[:, None] * frequencies.astype(np.float32)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1)
