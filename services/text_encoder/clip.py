"""CLIP's text encoder: token ids to one embedding per position, and one of the whole text.

aMUSEd's transformer attends to the layer before the last one, and its norms are adapted by the
pooled vector. Padding is not masked: as CLIP was trained, each position sees those before it.

Source: Radford et al. 2021, "Learning Transferable Visual Models", section 2.4;
huggingface/transformers, models/clip/modeling_clip.py, `CLIPTextModelWithProjection`.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.nn.options import LayerOptions
from services.nn.projection import Projection
from services.nn.transformer import LayerWrapper, as_it_is, scan_layers, stacked
from services.text_encoder.clip_config import ClipTextConfig

EPSILON = 1e-5  # of every normalisation
QUICK = 1.702


class ClipNorm(nnx.Module):
    """Layer normalisation in float32 with a scale and a bias."""

    def __init__(self, hidden: int, **options: Unpack[LayerOptions]) -> None:
        """Normalises over the last axis and returns `dtype`."""
        self.dtype = options["dtype"]
        wide: LayerOptions = {**options, "dtype": jnp.float32}
        self.norm = nnx.LayerNorm(hidden, epsilon=EPSILON, use_fast_variance=False, **wide)

    def __call__(self, features: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns features of zero mean and unit variance, scaled and shifted."""
        return self.norm(features).astype(self.dtype)


class ClipLayer(nnx.Module):
    """Causal self-attention and MLP, each with a norm before it and a residual connection."""

    wrap: LayerWrapper = staticmethod(as_it_is)

    def __init__(self, config: ClipTextConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the layer, with biases."""
        hidden = config.hidden
        self.heads, self.quick_gelu = config.heads, config.quick_gelu
        self.attention_norm = ClipNorm(hidden, **options)
        self.project = Projection(hidden, 3 * hidden, **options)
        self.output = Projection(hidden, hidden, **options)
        self.mlp_norm = ClipNorm(hidden, **options)
        self.expand = Projection(hidden, config.mlp, **options)
        self.contract = Projection(config.mlp, hidden, **options)

    def __call__(self, features: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns features of the same shape."""
        split = self.project(self.attention_norm(features))
        split = split.reshape(*features.shape[:2], 3, self.heads, -1)
        queries, keys, values = jnp.moveaxis(split, 2, 0)
        mixed = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
        features = features + self.output(mixed.reshape(features.shape))
        return features + self.contract(self._gelu(self.expand(self.mlp_norm(features))))

    def _gelu(self, inner: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
        if self.quick_gelu:
            return inner * jax.nn.sigmoid(QUICK * inner)
        return jax.nn.gelu(inner, approximate=False)


class ClipTextEncoder(nnx.Module):
    """CLIP's text encoder, whose stacked layers `jax.lax.scan` runs."""

    def __init__(
        self,
        config: ClipTextConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Builds embeddings, layers, final norm and projection.

        Args:
            config: Shape of the encoder.
            rngs: Source of the initial parameters.
            dtype: Type of the arithmetic: float32 or bfloat16. Norms and softmax are float32.
            param_dtype: Type of the parameters.
        """
        self.config, self.dtype = config, dtype
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)

        def drawn(rows: int) -> nnx.Param[Array]:
            shape = (rows, config.hidden)
            return nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype))

        self.tokens = drawn(config.vocabulary_size)
        self.positions = drawn(config.maximum_length)

        def layer(each: nnx.Rngs) -> ClipLayer:
            return ClipLayer(config, rngs=each, dtype=dtype, param_dtype=param_dtype)

        self.blocks = stacked(layer, config.layers, rngs)
        self.final_norm = ClipNorm(config.hidden, **options)
        self.projection = Projection(config.hidden, config.hidden, use_bias=False, **options)

    def __call__(self, ids: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T+1 D"]:
        """Embeds token ids.

        Args:
            ids: Token ids, padded to all positions; each text has an end.
            mask: As of `TextEncoder`. It changes nothing: padding is part of a text here.

        Returns:
            The output of the layer before the last one at each position, then the pooled vector.
        """
        del mask
        embedded = (self.tokens[...][ids] + self.positions[...]).astype(self.dtype)

        def step(layer: ClipLayer, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            return (layer(carry[0]), carry[0]), None

        (last, penultimate), _ = scan_layers(self.blocks, step, (embedded, embedded))
        end = jnp.argmax(ids == self.config.end_id, axis=-1)  # the first one
        at_end = jnp.take_along_axis(self.final_norm(last), end[:, None, None], axis=1)
        return jnp.concatenate([penultimate, self.projection(at_end)], axis=1)
