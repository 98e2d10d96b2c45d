"""VQGAN: images to a grid of tokens and back, fully convolutional.

No layer looks further than its kernel and none knows the size of the image, so any size that is a
multiple of the factor works (Muse, section 2.2: "fully convolutional ... without any
self-attention"). Deviation: each pixel is normalised by itself (`Normalise`).

Source: Esser et al. 2021, "Taming Transformers"; Muse, section 2.2, Table 5 and appendix A.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from services.nn.quantizer import Quantizer
from services.nn.winograd import winograd
from services.tokenizer.config import TokenizerConfig

# Channels from which sixteen products are worth what they take longer to compile; they are faster
# than XLA's convolution from 32 on.
LEAST_INPUTS = 128


class Convolution(nnx.Conv):
    """A convolution that sees the picture's border repeated beyond it, of a kernel 1 or 3 wide.

    With zeros there, a token would depend on how far the border is, and one plain background
    would have a code for every distance.

    XLA's CPU backend reaches half of what its cores multiply in convolutions, and less at many
    pixels. There, in float32, they are made of matrix products; other devices have convolutions.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        strides: int = 1,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Maps `inputs` channels to `outputs`; the size is kept, or divided by `strides`."""
        super().__init__(
            inputs,
            outputs,
            (kernel, kernel),
            strides=strides,
            padding="VALID",
            rngs=rngs,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        # As "SAME" pads: with a stride of 2 only at the far side.
        self.margin = (0, 0) if kernel == 1 else (int(strides == 1), 1)
        self.in_products = strides == 1 and (kernel == 1 or inputs >= LEAST_INPUTS)

    def __call__(
        self, features: Float[Array, "B h w C"], out_sharding: Any = None
    ) -> Float[Array, "B h2 w2 D"]:
        """Returns features; `out_sharding` as in `nnx.Conv`."""
        padded = jnp.pad(features, ((0, 0), self.margin, self.margin, (0, 0)), mode="edge")
        on_cpu = jax.default_backend() == "cpu" and self.dtype == jnp.float32
        if not (on_cpu and self.in_products):
            return super().__call__(padded, out_sharding)
        padded, kernel = padded.astype(self.dtype), self.kernel[...].astype(self.dtype)
        mapped = padded @ kernel[0, 0] if kernel.shape[0] == 1 else winograd(padded, kernel)
        assert self.bias is not None  # every layer here has one
        return mapped + self.bias[...].astype(self.dtype)


class Normalise(nnx.Module):
    """Layer normalisation of each pixel's channels in float32, then swish.

    VQGAN's group normalisation takes its statistics from the whole image: a token then depends on
    everything in the picture and on its size, and plain background has other codes in every scene.
    With one pixel's own statistics a token says what is near it and nothing else.
    """

    def __init__(
        self, channels: int, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
    ) -> None:
        """Normalises the last axis."""
        self.dtype = dtype
        self.norm = nnx.LayerNorm(channels, rngs=rngs, dtype=jnp.float32, param_dtype=param_dtype)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Returns features of the same shape."""
        return jax.nn.silu(self.norm(features)).astype(self.dtype)


class ResidualBlock(nnx.Module):
    """Two normalised convolutions and a shortcut."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Maps `inputs` channels to `outputs`; the shortcut is a 1x1 convolution if they differ."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.first_norm = Normalise(inputs, **kinds)
        self.first = Convolution(inputs, outputs, kernel, **kinds)
        self.second_norm = Normalise(outputs, **kinds)
        self.second = Convolution(outputs, outputs, kernel, **kinds)
        self.shortcut = Convolution(inputs, outputs, 1, **kinds) if inputs != outputs else None

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Returns features of the same height and width."""
        residual = self.second(self.second_norm(self.first(self.first_norm(features))))
        return residual + (features if self.shortcut is None else self.shortcut(features))


class Encoder(nnx.Module):
    """Image to features at 1/f of its size."""

    def __init__(
        self,
        config: TokenizerConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Stacks the resolutions, full resolution first."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        channels = [config.base_channels * m for m in config.channel_multipliers]
        self.stem = Convolution(3, channels[0], **kinds)
        layers: list[nnx.Module] = []
        width = channels[0]
        for level, outputs in enumerate(channels):
            if level:
                layers.append(Convolution(width, outputs, strides=2, **kinds))
                width = outputs
            for _ in range(config.residual_blocks):
                kernel = config.encoder_kernels[level]
                layers.append(ResidualBlock(width, outputs, kernel, **kinds))
        self.layers = nnx.List(layers)
        self.head_norm = Normalise(width, **kinds)
        self.head = Convolution(width, config.code_dim, 1, **kinds)

    def __call__(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B h/f w/f C"]:
        """Returns the features that are quantised, in float32."""
        features = self.stem(images)
        for layer in self.layers:
            features = layer(features)
        return self.head(self.head_norm(features)).astype(jnp.float32)


class Decoder(nnx.Module):
    """Codes to an image f times their size."""

    def __init__(
        self,
        config: TokenizerConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Stacks the resolutions, lowest first."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        channels = [config.decoder_base_channels * m for m in config.channel_multipliers][::-1]
        self.stem = Convolution(config.code_dim, channels[0], **kinds)
        layers: list[nnx.Module] = []
        width = channels[0]
        for level, outputs in enumerate(channels):
            if level:
                layers.append(Upsample(width, outputs, repeat_first=config.repeat_first, **kinds))
                width = outputs
            for _ in range(config.decoder_residual_blocks):
                layers.append(ResidualBlock(width, outputs, **kinds))
        self.layers = nnx.List(layers)
        self.head_norm = Normalise(width, **kinds)
        self.head = Convolution(width, 3, **kinds)

    def __call__(self, codes: Float[Array, "B h w C"]) -> Float[Array, "B h*f w*f 3"]:
        """Returns images, about in [-1, 1], in float32."""
        features = self.stem(codes)
        for layer in self.layers:
            features = layer(features)
        return self.head(self.head_norm(features)).astype(jnp.float32)

    @property
    def last_kernel(self) -> nnx.Param:
        """The kernel of the last convolution, where VQGAN weighs its adversarial loss."""
        return self.head.kernel


class Upsample(nnx.Module):
    """Doubles the size by repeating pixels, then convolves (Esser et al. 2021, appendix A)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        repeat_first: bool,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Maps `inputs` channels to `outputs`, in the order that the configuration says."""
        self.repeat_first = repeat_first
        self.project = Convolution(inputs, outputs, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B 2*h 2*w D"]:
        """Returns features of twice the height and width."""
        if self.repeat_first:
            return self.project(_doubled(features))
        return _doubled(self.project(features))


def _doubled(features: Float[Array, "B h w C"]) -> Float[Array, "B 2*h 2*w C"]:
    return jnp.repeat(jnp.repeat(features, 2, axis=1), 2, axis=2)


class Tokenizer(nnx.Module):
    """The whole VQGAN."""

    def __init__(
        self,
        config: TokenizerConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Builds encoder, codebook and decoder.

        Args:
            config: Its shape.
            rngs: Source of the initial parameters.
            dtype: Of the convolutions: float32 or bfloat16. Norms and the code search are float32.
            param_dtype: Of the parameters.
        """
        self.config = config
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.encoder = Encoder(config, **kinds)
        self.quantizer = Quantizer(
            config.codebook_size, config.code_dim, rngs=rngs, param_dtype=param_dtype
        )
        self.decoder = Decoder(config, **kinds)

    def encode(self, images: Float[Array, "B h w 3"]) -> Int[Array, "B h/f w/f"]:
        """Turns images in [-1, 1] into token ids.

        Raises:
            ValueError: a side is not a multiple of the factor.
        """
        height, width = images.shape[1:3]
        if height % self.config.factor or width % self.config.factor:
            raise ValueError(
                f"an image of {height}x{width} pixels cannot be tokenised: "
                f"both sides must be multiples of {self.config.factor}"
            )
        return self.quantizer.ids(self.encoder(images))

    def decode(self, ids: Int[Array, "B h w"]) -> Float[Array, "B h*f w*f 3"]:
        """Turns token ids into images, clipped to [-1, 1]."""
        return jnp.clip(self.decoder(self.quantizer.codes(ids)), -1.0, 1.0)
