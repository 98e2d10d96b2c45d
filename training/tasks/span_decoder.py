"""The T5 v1.1 decoder that span corruption needs; it is thrown away after training."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from services.nn.transformer import RMSNorm
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.model import (
    MASKED,
    Attention,
    GatedMLP,
    TextEncoder,
    mask_bias,
    matrix,
    relative_buckets,
)
from services.text_encoder.vocabulary import PADDING

PARAMETERS: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32}


class DecoderBlock(nnx.Module):
    """Causal self-attention, cross-attention and gated MLP."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs) -> None:
        """Builds one layer as wide as the encoder's."""
        shape = (config.hidden, config.heads, config.head_dim)
        self.self_norm = RMSNorm(config.hidden, **PARAMETERS)
        self.self_attention = Attention(*shape, rngs=rngs, **PARAMETERS)
        self.cross_norm = RMSNorm(config.hidden, **PARAMETERS)
        self.cross_attention = Attention(*shape, rngs=rngs, **PARAMETERS)
        self.mlp_norm = RMSNorm(config.hidden, **PARAMETERS)
        self.mlp = GatedMLP(config.hidden, config.mlp, rngs=rngs, **PARAMETERS)

    def __call__(
        self,
        features: Float[Array, "B U D"],
        text: Float[Array, "B T D"],
        self_bias: Float[Array, "1 H U U"],
        text_bias: Float[Array, "B 1 1 T"],
    ) -> Float[Array, "B U D"]:
        """Returns features of the same shape."""
        normal = self.self_norm(features)
        features = features + self.self_attention(normal, normal, self_bias)
        features = features + self.cross_attention(self.cross_norm(features), text, text_bias)
        return features + self.mlp(self.mlp_norm(features))


class SpanModel(nnx.Module):
    """Encoder, decoder and the heads of noun labels; only the encoder is served."""

    def __init__(
        self,
        config: TextEncoderConfig,
        *,
        decoder_layers: int,
        label_classes: Mapping[str, int],
        rngs: nnx.Rngs,
    ) -> None:
        """Builds both; the decoder reads the encoder's token embedding and has its own head.

        Args:
            config: Shape of the encoder and width of the decoder.
            decoder_layers: A shallow decoder leaves the understanding to the encoder.
            label_classes: Classes of each label that a linear head reads from an embedding.
            rngs: Source of the initial parameters.
        """
        self.config = config
        self.encoder = TextEncoder(config, rngs=rngs)
        self.decoder = nnx.List([DecoderBlock(config, rngs=rngs) for _ in range(decoder_layers)])
        scale = config.hidden**-0.5
        self.decoder_bias = matrix(
            (config.relative_buckets, config.heads), scale, rngs=rngs, **PARAMETERS
        )
        self.final_norm = RMSNorm(config.hidden, **PARAMETERS)
        self.head = matrix((config.hidden, config.vocabulary_size), scale, rngs=rngs, **PARAMETERS)
        self.label_heads = nnx.Dict(
            {
                name: matrix((config.hidden, classes), scale, rngs=rngs, **PARAMETERS)
                for name, classes in label_classes.items()
            }
        )

    def __call__(
        self, inputs: Int[Array, "B T"], targets: Int[Array, "B U"]
    ) -> Float[Array, "B U V"]:
        """Returns the logits of each target token, given the inputs and the targets before it."""
        mask: Bool[Array, "B T"] = inputs != PADDING
        text = self.encoder(inputs, mask)
        before = jnp.pad(targets, ((0, 0), (1, 0)), constant_values=PADDING)[:, :-1]
        features = self.encoder.embedding[...][before]
        self_bias, text_bias = self._causal_bias(targets.shape[1]), mask_bias(mask)
        for block in self.decoder:
            features = block(features, text, self_bias, text_bias)
        return self.final_norm(features) @ self.head[...]

    def labels(self, ids: Int[Array, "B T"]) -> dict[str, Float[Array, "B T classes"]]:
        """Returns the logits of each label at every token of whole texts."""
        embeddings = self.encoder(ids, ids != PADDING)
        return {name: embeddings @ head[...] for name, head in self.label_heads.items()}

    def _causal_bias(self, length: int) -> Float[Array, "1 H U U"]:
        buckets = relative_buckets(
            length,
            length,
            buckets=self.config.relative_buckets,
            maximum_distance=self.config.relative_max_distance,
            bidirectional=False,
        )
        position = self.decoder_bias[...][buckets].transpose(2, 0, 1)
        return (position + np.triu(np.full((length, length), MASKED, np.float32), k=1))[None]
