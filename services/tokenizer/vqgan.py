"""VQGAN with group normalisation, zero padding and optional attention: the published networks.

The network of `services.tokenizer.model` is what this project trains; this one computes what
others have trained. A token depends on the whole picture here: group normalisation and attention
see all of it.

Source: Esser et al. 2021, "Taming Transformers", appendix A, Table 7; CompVis/taming-transformers,
taming/modules/diffusionmodules/model.py, classes Encoder and Decoder.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from services.nn.options import LayerOptions
from services.nn.quantizer import Quantizer
from services.tokenizer.model import Convolution, check_sides, doubled
from services.tokenizer.vqgan_config import GROUPS, VqganConfig

EPSILON = 1e-6  # of every group normalisation
SHORTEST_CODE = 1e-12  # that normalisation divides by, as torch.nn.functional.normalize does

ZeroPadded = partial(Convolution, border="constant")
# The difference of two means, E[x^2] - E[x]^2, would lose digits that tokens depend on.
GroupNorm = partial(nnx.GroupNorm, num_groups=GROUPS, epsilon=EPSILON, use_fast_variance=False)


class GroupedBlock(nnx.Module):
    """Two convolutions, each after a group normalisation and swish, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, **options: Unpack[LayerOptions]) -> None:
        """Maps `inputs` channels to `outputs`; the shortcut is a 1x1 convolution if they differ."""
        self.first_norm = GroupNorm(inputs, **options)
        self.first = ZeroPadded(inputs, outputs, **options)
        self.second_norm = GroupNorm(outputs, **options)
        self.second = ZeroPadded(outputs, outputs, **options)
        self.shortcut = ZeroPadded(inputs, outputs, 1, **options) if inputs != outputs else None

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Returns features of the same height and width."""
        hidden = self.first(jax.nn.silu(self.first_norm(features)))
        residual = self.second(jax.nn.silu(self.second_norm(hidden)))
        return residual + (features if self.shortcut is None else self.shortcut(features))


class PixelAttention(nnx.Module):
    """Self-attention of one head over all positions, after a group normalisation."""

    def __init__(self, channels: int, **options: Unpack[LayerOptions]) -> None:
        """Makes the normalisation and four 1x1 convolutions."""
        self.norm = GroupNorm(channels, **options)
        self.query = ZeroPadded(channels, channels, 1, **options)
        self.key = ZeroPadded(channels, channels, 1, **options)
        self.value = ZeroPadded(channels, channels, 1, **options)
        self.output = ZeroPadded(channels, channels, 1, **options)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Returns features of the same shape."""
        batch, height, width, channels = features.shape
        normal = self.norm(features)
        query, key, value = (
            layer(normal).reshape(batch, height * width, 1, channels)
            for layer in (self.query, self.key, self.value)
        )
        mixed = jax.nn.dot_product_attention(query, key, value)
        return features + self.output(mixed.reshape(features.shape))


class Middle(nnx.Module):
    """Two residual blocks at the lowest resolution, and attention between them if there is any."""

    def __init__(self, config: VqganConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the blocks."""
        width = config.channels[-1]
        self.first = GroupedBlock(width, width, **options)
        self.attention = PixelAttention(width, **options) if config.middle_attention else None
        self.second = GroupedBlock(width, width, **options)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Returns features of the same shape."""
        features = self.first(features)
        return self.second(features if self.attention is None else self.attention(features))


class Level(nnx.Module):
    """The residual blocks of one resolution, each with attention after it if the level has any."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        blocks: int,
        attention: bool,
        resample: Convolution | None,
        **options: Unpack[LayerOptions],
    ) -> None:
        """Builds the blocks; `resample` is the convolution of the way to the next resolution."""
        widths = (inputs, *(blocks * (outputs,)))
        self.blocks = nnx.List(
            [GroupedBlock(width, outputs, **options) for width in widths[:blocks]]
        )
        self.attentions = nnx.List(
            [PixelAttention(outputs, **options) for _ in range(blocks if attention else 0)]
        )
        self.resample = resample

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Returns features of the same height and width, before any resampling."""
        for index, block in enumerate(self.blocks):
            features = block(features)
            if self.attentions:
                features = self.attentions[index](features)
        return features


class VqganEncoder(nnx.Module):
    """Image to the features to quantise, at 1/f of its size."""

    def __init__(self, config: VqganConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the layers, full resolution first."""
        self.stem = ZeroPadded(3, config.stem_channels, **options)
        levels, width = [], config.stem_channels
        for level, outputs in enumerate(config.channels):
            last = level == len(config.channels) - 1
            levels.append(
                Level(
                    width,
                    outputs,
                    blocks=config.residual_blocks,
                    attention=level in config.attention_levels,
                    resample=None if last else ZeroPadded(outputs, outputs, strides=2, **options),
                    **options,
                )
            )
            width = outputs
        self.levels = nnx.List(levels)
        self.middle = Middle(config, **options)
        self.head_norm = GroupNorm(width, **options)
        self.head = ZeroPadded(width, config.latent_channels, **options)
        self.to_codes = ZeroPadded(config.latent_channels, config.code_dim, 1, **options)

    def __call__(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B h/f w/f C"]:
        """Returns the features to quantise."""
        features = self.stem(images)
        for level in self.levels:
            features = level(features)
            if level.resample is not None:
                features = level.resample(features)
        features = self.head_norm(self.middle(features))
        return self.to_codes(self.head(jax.nn.silu(features)))


class VqganDecoder(nnx.Module):
    """Codes to an image f times their size."""

    def __init__(self, config: VqganConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the layers, lowest resolution first."""
        width = config.channels[-1]
        self.from_codes = ZeroPadded(config.code_dim, config.latent_channels, 1, **options)
        self.stem = ZeroPadded(config.latent_channels, width, **options)
        self.middle = Middle(config, **options)
        levels = []
        for level in reversed(range(len(config.channels))):
            outputs = config.channels[level]
            levels.append(
                Level(
                    width,
                    outputs,
                    blocks=config.decoder_residual_blocks,
                    attention=level in config.attention_levels,
                    resample=ZeroPadded(outputs, outputs, **options) if level else None,
                    **options,
                )
            )
            width = outputs
        self.levels = nnx.List(levels)
        self.head_norm = GroupNorm(width, **options)
        self.head = ZeroPadded(width, 3, **options)

    def __call__(self, codes: Float[Array, "B h w C"]) -> Float[Array, "B h*f w*f 3"]:
        """Returns images, about in the range of the network's pixels."""
        features = self.middle(self.stem(self.from_codes(codes)))
        for level in self.levels:
            features = level(features)
            if level.resample is not None:
                features = level.resample(doubled(features))
        return self.head(jax.nn.silu(self.head_norm(features)))


class Vqgan(nnx.Module):
    """A published VQGAN: encoder, codebook and decoder, in float32."""

    def __init__(self, config: VqganConfig, *, rngs: nnx.Rngs) -> None:
        """Builds encoder, codebook and decoder.

        Args:
            config: Shape of the VQGAN.
            rngs: Source of the initial parameters.
        """
        self.config = config
        options = LayerOptions(rngs=rngs, dtype=jnp.float32, param_dtype=jnp.float32)
        self.encoder = VqganEncoder(config, **options)
        self.quantizer = Quantizer(config.codebook_size, config.code_dim, rngs=rngs)
        self.decoder = VqganDecoder(config, **options)

    def encode(self, images: Float[Array, "B h w 3"]) -> Int[Array, "B h/f w/f"]:
        """Turns images in [-1, 1] into token ids.

        No device rounds the factors of its products, as in `services.tokenizer.model.Tokenizer`.

        Raises:
            ValueError: a side is not a multiple of the factor.
        """
        check_sides(images, self.config.factor)
        pixels = images if self.config.signed_pixels else (images + 1) / 2
        with jax.default_matmul_precision("highest"):
            features = self.encoder(pixels)
            if self.config.l2_normalised_codes:
                lengths = jnp.linalg.norm(features, axis=-1, keepdims=True)
                features /= jnp.maximum(lengths, SHORTEST_CODE)
            return self.quantizer.ids(features)

    def decode(self, ids: Int[Array, "B h w"]) -> Float[Array, "B h*f w*f 3"]:
        """Turns token ids into images, clipped to [-1, 1]."""
        pixels = self.decoder(self.quantizer.codes(ids))
        return jnp.clip(pixels if self.config.signed_pixels else 2 * pixels - 1, -1.0, 1.0)
