"""VQGAN: images to a grid of tokens and back, fully convolutional.

Every layer is local and independent of the image's size, so any size that is a multiple of the
factor works (Muse, section 2.2: "fully convolutional ... without any self-attention"). Deviation:
each pixel is normalised by itself (`Normalise`).

Source: Esser et al. 2021, "Taming Transformers"; Muse, section 2.2, Table 5 and appendix A.2.
"""

from collections.abc import Callable
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from services.nn.bf16_matmul import RoundsFactors
from services.nn.compiling import target_platform
from services.nn.options import LayerOptions
from services.nn.patches import convolve_patches
from services.nn.quantizer import Quantizer
from services.nn.winograd import matrix_product, winograd
from services.tokenizer.config import TokenizerConfig

CODEBOOK = "quantizer.codebook"  # name of the parameter
# Input channels from which Winograd convolution is worth its longer compilation.
LEAST_INPUTS = 128
# Input channels from which it is faster than one product of all patches.
LEAST_WINOGRAD_INPUTS = 24


class Convolution(nnx.Conv, RoundsFactors):
    """A convolution that pads an image, by default by repeating its border.

    Its kernel has a side of 3, or of its stride: then patches do not overlap, and need no padding.

    With zero padding, a token would depend on its distance from the border, and a plain background
    would have another code at every distance. Only networks that were trained with it have it.

    XLA's CPU backend reaches half of the cores' peak in convolutions, and less at many pixels. In
    float32 on a CPU, this layer multiplies matrices instead; other devices run the convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        strides: int = 1,
        border: Literal["edge", "constant"] = "edge",
        **options: Unpack[LayerOptions],
    ) -> None:
        """Maps `inputs` channels to `outputs`; the size is kept, or divided by `strides`.

        The mode `border` of `jnp.pad` pads: "constant" with zeros.
        """
        super().__init__(
            inputs, outputs, (kernel, kernel), strides=strides, padding="VALID", **options
        )
        self.stride, self.border = strides, border
        # The margins of "SAME" padding: with a stride of 2 only at the bottom and right.
        self.margin = (0, 0) if kernel == strides else (int(strides == 1), 1)
        self.in_products = strides == 1 and (kernel == 1 or inputs >= LEAST_INPUTS)

    def __call__(
        self,
        features: Float[Array, "B h w C"],
        out_sharding: NamedSharding | PartitionSpec | None = None,
    ) -> Float[Array, "B h2 w2 D"]:
        """Returns features; `out_sharding` as in `nnx.Conv`."""
        margins = ((0, 0), self.margin, self.margin, (0, 0))
        padded = jnp.pad(features, margins, mode=self.border)
        padded, kernel = padded.astype(self.dtype), self.kernel[...].astype(self.dtype)
        on_cpu = target_platform() == "cpu" and self.dtype == jnp.float32
        if on_cpu and (self.in_products or self.bf16_factors):
            convolved = self._products(padded, kernel)
        elif self.bf16_factors:
            convolved = _bf16_convolution(padded, kernel, self.stride)
        else:
            return super().__call__(padded, out_sharding)
        assert self.bias is not None  # every layer here has one
        return convolved + self.bias[...].astype(self.dtype)

    def _products(self, padded: Array, kernel: Array) -> Array:
        rounds = self.bf16_factors
        if kernel.shape[0] == self.stride:
            matrix = kernel.reshape(-1, self.out_features)
            return matrix_product(_patches(padded, self.stride), matrix, bf16_factors=rounds)
        if self.stride == 1 and self.in_features >= LEAST_WINOGRAD_INPUTS:
            return winograd(padded, kernel, bf16_factors=rounds)
        return convolve_patches(padded, kernel, stride=self.stride, bf16_factors=rounds)


def _bf16_convolution(
    padded: Float[Array, "B h w C"], kernel: Float[Array, "k k C D"], stride: int
) -> Float[Array, "B h2 w2 D"]:
    """Convolves features without padding: bfloat16 factors, float32 sums."""
    return lax.conv_general_dilated(
        padded.astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )


def _patches(features: Float[Array, "B h w C"], side: int) -> Float[Array, "B h/s w/s s*s*C"]:
    """Returns the square patches that an image is divided into."""
    batch, height, width, channels = features.shape
    parts = features.reshape(batch, height // side, side, width // side, side, channels)
    return parts.swapaxes(2, 3).reshape(batch, height // side, width // side, -1)


class Normalise(nnx.Module):
    """Layer normalisation of each pixel's channels in float32, then swish.

    VQGAN's group normalisation computes its statistics over the whole image: a token then depends
    on the image's whole content and size, and a plain background has other codes in every scene.
    With statistics per pixel, a token depends only on the pixels near it.
    """

    def __init__(self, channels: int, **options: Unpack[LayerOptions]) -> None:
        """Makes a layer normalisation of the last axis."""
        self.dtype = options["dtype"]
        wide: LayerOptions = {**options, "dtype": jnp.float32}
        self.norm = nnx.LayerNorm(channels, **wide)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Returns features of the same shape."""
        return jax.nn.silu(self.norm(features)).astype(self.dtype)


class ResidualBlock(nnx.Module):
    """Two normalised convolutions and a shortcut."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, **options: Unpack[LayerOptions]
    ) -> None:
        """Maps `inputs` channels to `outputs`; the shortcut is a 1x1 convolution if they differ."""
        self.first_norm = Normalise(inputs, **options)
        self.first = Convolution(inputs, outputs, kernel, **options)
        self.second_norm = Normalise(outputs, **options)
        self.second = Convolution(outputs, outputs, kernel, **options)
        self.shortcut = Convolution(inputs, outputs, 1, **options) if inputs != outputs else None

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Returns features of the same height and width."""
        residual = self.second(self.second_norm(self.first(self.first_norm(features))))
        return residual + (features if self.shortcut is None else self.shortcut(features))


Layer = Callable[[Float[Array, "B h w C"]], Float[Array, "B h2 w2 D"]]


def as_it_is(layer: Layer) -> Layer:
    """Returns a layer unchanged, as serving computes it."""
    return layer


class Encoder(nnx.Module):
    """Image to features at 1/f of its size."""

    wrap: Callable[[Layer], Layer] = staticmethod(as_it_is)  # training sets another one

    def __init__(self, config: TokenizerConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the layers, full resolution first."""
        channels = [config.base_channels * m for m in config.channel_multipliers]
        self.stem = Convolution(3, channels[0], 3 if config.encoder_overlaps else 1, **options)
        halving = 3 if config.encoder_overlaps else 2
        layers: list[nnx.Module] = []
        width = channels[0]
        for level, outputs in enumerate(channels):
            if level:
                layers.append(Convolution(width, outputs, halving, strides=2, **options))
                width = outputs
            for _ in range(config.residual_blocks):
                kernel = config.encoder_kernels[level]
                layers.append(ResidualBlock(width, outputs, kernel, **options))
        self.layers = nnx.List(layers)
        self.head_norm = Normalise(width, **options)
        self.head = Convolution(width, config.code_dim, 1, **options)

    def __call__(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B h/f w/f C"]:
        """Returns the features to quantise, in float32."""
        features = self.stem(images)
        for layer in self.layers:
            features = self.wrap(layer)(features)
        return self.head(self.head_norm(features)).astype(jnp.float32)


class Decoder(nnx.Module):
    """Codes to an image f times their size."""

    wrap: Callable[[Layer], Layer] = staticmethod(as_it_is)  # as of Encoder

    def __init__(self, config: TokenizerConfig, **options: Unpack[LayerOptions]) -> None:
        """Builds the layers, lowest resolution first."""
        channels = [config.decoder_base_channels * m for m in config.channel_multipliers][::-1]
        self.stem = Convolution(config.code_dim, channels[0], **options)
        layers: list[nnx.Module] = []
        width = channels[0]
        for level, outputs in enumerate(channels):
            if level:
                repeat_first = config.repeat_first
                layers.append(Upsample(width, outputs, repeat_first=repeat_first, **options))
                width = outputs
            for _ in range(config.decoder_residual_blocks):
                layers.append(ResidualBlock(width, outputs, **options))
        self.layers = nnx.List(layers)
        self.head_norm = Normalise(width, **options)
        self.head = Convolution(width, 3, **options)

    def __call__(self, codes: Float[Array, "B h w C"]) -> Float[Array, "B h*f w*f 3"]:
        """Returns images, about in [-1, 1], in float32."""
        features = self.stem(codes)
        for layer in self.layers:
            features = self.wrap(layer)(features)
        return self.head(self.head_norm(features)).astype(jnp.float32)


class Upsample(nnx.Module):
    """Doubles the size by repeating pixels, before or after a convolution.

    Esser et al. 2021, appendix A, repeats before; after takes a quarter of the arithmetic.
    """

    def __init__(
        self, inputs: int, outputs: int, *, repeat_first: bool, **options: Unpack[LayerOptions]
    ) -> None:
        """Maps `inputs` channels to `outputs`; `repeat_first` repeats before the convolution."""
        self.repeat_first = repeat_first
        self.project = Convolution(inputs, outputs, **options)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B 2*h 2*w D"]:
        """Returns features of twice the height and width."""
        if self.repeat_first:
            return self.project(doubled(features))
        return doubled(self.project(features))


def doubled(features: Float[Array, "B h w C"]) -> Float[Array, "B 2*h 2*w C"]:
    """Returns features of twice the height and width, each pixel four times."""
    return jnp.repeat(jnp.repeat(features, 2, axis=1), 2, axis=2)


class Tokenizer(nnx.Module):
    """A VQGAN: encoder, codebook and decoder."""

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
            config: Shape of the VQGAN.
            rngs: Source of the initial parameters.
            dtype: Type of the convolutions: float32 or bfloat16. Norms and the code search are
                float32.
            param_dtype: Type of the parameters.
        """
        self.config = config
        options = LayerOptions(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.encoder = Encoder(config, **options)
        self.quantizer = Quantizer(
            config.codebook_size, config.code_dim, rngs=rngs, param_dtype=param_dtype
        )
        self.decoder = Decoder(config, **options)

    def encode(self, images: Float[Array, "B h w 3"]) -> Int[Array, "B h/f w/f"]:
        """Turns images in [-1, 1] into token ids.

        No device rounds the float32 factors of its products, as a TPU by default does to bfloat16
        and a GPU to TF32: that would give some tokens other ids. In `decode` they do.

        Raises:
            ValueError: a side is not a multiple of the factor.
        """
        check_sides(images, self.config.factor)
        with jax.default_matmul_precision("highest"):
            return self.quantizer.ids(self.encoder(images))

    def decode(self, ids: Int[Array, "B h w"]) -> Float[Array, "B h*f w*f 3"]:
        """Turns token ids into images, clipped to [-1, 1]."""
        return jnp.clip(self.decoder(self.quantizer.codes(ids)), -1.0, 1.0)


def check_sides(images: Float[Array, "B h w 3"], factor: int) -> None:
    """Checks that images divide into tokens of `factor` pixels a side.

    Raises:
        ValueError: a side is not a multiple of the factor.
    """
    height, width = images.shape[1:3]
    if height % factor or width % factor:
        raise ValueError(
            f"an image of {height}x{width} pixels cannot be tokenised: "
            f"both sides must be multiples of {factor}"
        )
