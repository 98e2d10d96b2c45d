"""The T5 encoder: token ids to one embedding per token.

T5 differs from other transformers by an RMS norm without mean or bias, attention logits that are
not scaled by the head's width, and a relative position bias, which all layers share. In T5 v1.1 the
feed-forward is a gated GELU; UMT5 has a position bias in each layer.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1; Shazeer 2020,
"GLU Variants Improve Transformer"; the v1.1 shapes as released by T5's authors.
"""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.nn.bf16_matmul import RoundsFactors
from services.nn.options import LayerOptions
from services.nn.quantization import product
from services.nn.transformer import RMSNorm, stacked
from services.text_encoder.config import TextEncoderConfig

# Scales of initial parameters. A strong position bias lets the layers encode word order from the
# first training step. The embedding's scale is T5's own: from 0.3 the layers drowned the words of
# short captions (a linear probe of the mean embedding found 69% of single objects; from 1.0, 95%).
INITIAL_BIAS = 1.5
INITIAL_EMBEDDING = 1.0
MASKED = float(np.finfo(np.float32).min)  # finite, so that a row without any text is not NaN


def matrix(
    shape: tuple[int, ...], scale: float, **options: Unpack[LayerOptions]
) -> nnx.Param[Array]:
    """Draws a parameter from a normal distribution of standard deviation `scale`."""
    drawn = scale * jax.random.normal(options["rngs"].params(), shape)
    return nnx.Param(drawn.astype(options["param_dtype"]))


class Attention(nnx.Module, RoundsFactors):
    """Multi-head attention without bias terms and without scaling of the logits."""

    def __init__(
        self, hidden: int, heads: int, head_dim: int, **options: Unpack[LayerOptions]
    ) -> None:
        """Draws the projections; the scale of `query` replaces the scaling of the logits."""
        self.heads, self.head_dim, self.dtype = heads, head_dim, options["dtype"]
        inner = heads * head_dim
        self.query = matrix((hidden, inner), (hidden * head_dim) ** -0.5, **options)
        self.key = matrix((hidden, inner), hidden**-0.5, **options)
        self.value = matrix((hidden, inner), hidden**-0.5, **options)
        self.output = matrix((inner, hidden), inner**-0.5, **options)

    def __call__(
        self,
        features: Float[Array, "B Q D"],
        source: Float[Array, "B T D"],
        bias: Float[Array, "#B #H #Q T"],
    ) -> Float[Array, "B Q D"]:
        """Attends from features to source; `bias` is added to the logits in float32."""
        factors = jnp.bfloat16 if self.bf16_factors else self.dtype
        query, key, value = (
            self._heads(product(vectors, matrix, factors)).astype(factors)
            for vectors, matrix in (
                (features, self.query),
                (source, self.key),
                (source, self.value),
            )
        )
        logits = jnp.einsum("bqhk,bthk->bhqt", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(factors)
        mixed = jnp.einsum("bhqt,bthk->bqhk", weights, value, preferred_element_type=features.dtype)
        return product(mixed.reshape(*mixed.shape[:2], -1), self.output, factors)

    def _heads(self, features: Float[Array, "B T I"]) -> Float[Array, "B T H K"]:
        return features.reshape(*features.shape[:2], self.heads, self.head_dim)


class GatedMLP(nnx.Module, RoundsFactors):
    """gelu(x A) * (x B), projected back: the gated GELU of T5 v1.1 (tanh form)."""

    def __init__(self, hidden: int, mlp: int, **options: Unpack[LayerOptions]) -> None:
        """Draws gate, linear part and output."""
        self.dtype = options["dtype"]
        self.gate = matrix((hidden, mlp), hidden**-0.5, **options)
        self.linear = matrix((hidden, mlp), hidden**-0.5, **options)
        self.output = matrix((mlp, hidden), mlp**-0.5, **options)

    def __call__(self, features: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns features of the same shape."""
        factors = jnp.bfloat16 if self.bf16_factors else self.dtype
        gate = jax.nn.gelu(product(features, self.gate, factors), approximate=True)
        linear = product(features, self.linear, factors)
        return product(gate * linear, self.output, factors)


class ReluMLP(nnx.Module, RoundsFactors):
    """relu(x A), projected back: the feed-forward of T5 1.0."""

    def __init__(self, hidden: int, mlp: int, **options: Unpack[LayerOptions]) -> None:
        """Draws both projections."""
        self.dtype = options["dtype"]
        self.linear = matrix((hidden, mlp), hidden**-0.5, **options)
        self.output = matrix((mlp, hidden), mlp**-0.5, **options)

    def __call__(self, features: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns features of the same shape."""
        factors = jnp.bfloat16 if self.bf16_factors else self.dtype
        return product(jax.nn.relu(product(features, self.linear, factors)), self.output, factors)


class EncoderBlock(nnx.Module):
    """Self-attention and MLP, each with a norm before it and a residual connection."""

    def __init__(self, config: TextEncoderConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds one layer."""
        hidden = config.hidden
        self.attention_norm = RMSNorm(hidden, **options)
        self.attention = Attention(hidden, config.heads, config.head_dim, **options)
        self.mlp_norm = RMSNorm(hidden, **options)
        mlp = GatedMLP if config.gated else ReluMLP
        self.mlp = mlp(hidden, config.mlp, **options)

    def __call__(
        self, features: Float[Array, "B T D"], bias: Float[Array, "B H T T"]
    ) -> Float[Array, "B T D"]:
        """Returns features of the same shape."""
        normal = self.attention_norm(features)
        features = features + self.attention(normal, normal, bias)
        return features + self.mlp(self.mlp_norm(features))


def relative_buckets(
    queries: int, keys: int, *, buckets: int, maximum_distance: int, bidirectional: bool
) -> Int[np.ndarray, "queries keys"]:
    """Returns the bucket of the distance from each query to each key.

    Each near distance has a bucket of its own. Far distances share buckets that widen
    logarithmically, and all distances from `maximum_distance` on share the last bucket. The result
    is a constant of the compiled program, since lengths are static. `bidirectional` gives half of
    the buckets to keys after the query, which otherwise have bucket 0.

    Source: Raffel et al. 2020, section 2.1.
    """
    distance = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    offset = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    # float32 throughout, as the released weights were trained with it: buckets border on integers.
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(maximum_distance / exact))
    far = exact + (growth * np.float32(buckets - exact)).astype(np.int64)
    return offset + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def mask_bias(mask: Bool[Array, "B T"]) -> Float[Array, "B 1 1 T"]:
    """Returns a bias for attention logits that masks padding."""
    return jnp.where(mask, 0.0, MASKED)[:, None, None, :]


class TextEncoder(nnx.Module):
    """A T5 encoder, whose stacked layers `jax.lax.scan` runs."""

    def __init__(
        self,
        config: TextEncoderConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Builds embedding, layers and final norm.

        Args:
            config: Shape of the encoder.
            rngs: Source of the initial parameters.
            dtype: Type of the arithmetic: float32 or bfloat16, never float16, whose range T5
                exceeds. Norms and softmax are float32.
            param_dtype: Type of the parameters.
        """
        self.config, self.dtype = config, dtype
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        rows = (config.vocabulary_size, config.hidden)
        self.embedding = matrix(rows, INITIAL_EMBEDDING, **options)
        # The tables of several layers lie below one another: int8 weights take what has three axes
        # for the stacked matrices of layers.
        tables = config.layers if config.bias_in_each_layer else 1
        biases = (tables * config.relative_buckets, config.heads)
        self.relative_bias = matrix(biases, INITIAL_BIAS, **options)

        def block(each: nnx.Rngs) -> EncoderBlock:
            return EncoderBlock(config, rngs=each, dtype=dtype, param_dtype=param_dtype)

        self.blocks = stacked(block, config.layers, rngs)
        self.final_norm = RMSNorm(config.hidden, **options)

    def __call__(self, ids: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeds token ids.

        Args:
            ids: Token ids, below `config.vocabulary_size`.
            mask: True for text positions, False for padding.

        Returns:
            Embeddings of type `dtype`; zero at padding.
        """
        masked, buckets = mask_bias(mask), self._buckets(ids.shape[1])
        tables = self.relative_bias[...].astype(jnp.float32)
        tables = tables.reshape(-1, self.config.relative_buckets, self.config.heads)
        shared = _position_bias(tables[0], buckets) + masked
        features = self.embedding[...][ids].astype(self.dtype)
        graph, stack = nnx.split(self.blocks)

        def layer(
            carried: Float[Array, "B T D"], own: tuple[nnx.State, Float[Array, "N H"] | None]
        ) -> tuple[Float[Array, "B T D"], None]:
            parameters, table = own
            bias = shared if table is None else _position_bias(table, buckets) + masked
            return nnx.merge(graph, parameters)(carried, bias), None

        own_tables = tables if self.config.bias_in_each_layer else None
        features, _ = jax.lax.scan(layer, features, (stack, own_tables))
        return jnp.where(mask[..., None], self.final_norm(features), 0)

    def _buckets(self, length: int) -> Int[np.ndarray, "T T"]:
        return relative_buckets(
            length,
            length,
            buckets=self.config.relative_buckets,
            maximum_distance=self.config.relative_max_distance,
            bidirectional=True,
        )


def _position_bias(
    table: Float[Array, "N H"], buckets: Int[np.ndarray, "T T"]
) -> Float[Array, "1 H T T"]:
    """Returns the bias of attention logits by the distance from query to key."""
    return table[buckets].transpose(2, 0, 1)[None]
