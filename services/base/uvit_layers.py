"""Layers of aMUSEd's U-ViT: transformer layers, convolutional blocks, and the way between grids.

What a layer computes from the text alone, and from the vector of conditions, is separate from what
it computes in a step: the former happens once per decode.

Source: Patil et al. 2024, "aMUSEd: An Open MUSE Reproduction"; huggingface/diffusers,
models/unets/uvit_2d.py and models/attention.py.
"""

from functools import partial
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from services.nn.attention import attend
from services.nn.options import LayerOptions
from services.nn.projection import Projection
from services.nn.transformer import LayerWrapper, Norm, RMSNorm, as_it_is

WIDER = 4  # of the channels inside a convolutional block
SHORTEST_RESPONSE = 1e-6  # added to what a response is divided by

Linear = partial(Projection, use_bias=False)


class LayerConditions(NamedTuple):
    """What a layer, or each of a stack of them, gets of a text: computed once per decode.

    Attributes:
        keys: Keys of each of its A cross-attentions.
        values: Their values.
        scale_shift: Scale and shift, one after the other, of what each of its M norms yields.
    """

    keys: Float[Array, "*L B A T H K"]
    values: Float[Array, "*L B A T H K"]
    scale_shift: Float[Array, "*L B M 2*D"]


def scaled_and_shifted(
    tokens: Float[Array, "B N D"], scale_shift: Float[Array, "B 2*D"]
) -> Float[Array, "B N D"]:
    """Returns tokens (1 + scale) + shift."""
    scale, shift = jnp.split(scale_shift[:, None], 2, axis=-1)
    return tokens * (1 + scale) + shift


class SelfAttention(nnx.Module):
    """Self-attention whose queries and keys are not normalised."""

    def __init__(self, hidden: int, heads: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the projections, without biases."""
        self.heads = heads
        self.project = Linear(hidden, 3 * hidden, **options)
        self.output = Linear(hidden, hidden, **options)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns the attention output of each position."""
        split = self.project(tokens).reshape(*tokens.shape[:2], 3, self.heads, -1)
        return self.output(attend(*jnp.moveaxis(split, 2, 0)).reshape(tokens.shape))


class CrossAttention(nnx.Module):
    """Cross-attention whose queries and keys are not normalised."""

    def __init__(self, hidden: int, heads: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the projections, without biases; tokens and text are `hidden` wide."""
        self.heads = heads
        self.query = Linear(hidden, hidden, **options)
        self.key_value = Linear(hidden, 2 * hidden, **options)
        self.output = Linear(hidden, hidden, **options)

    def keys_values(self, text: Float[Array, "B T D"]) -> Float[Array, "2 B T H K"]:
        """Returns the keys and the values of a text."""
        split = self.key_value(text).reshape(*text.shape[:2], 2, self.heads, -1)
        return jnp.moveaxis(split, 2, 0)

    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
    ) -> Float[Array, "B N D"]:
        """Returns what each position attends to."""
        queries = self.query(tokens).reshape(*tokens.shape[:2], self.heads, -1)
        return self.output(attend(queries, keys, values).reshape(tokens.shape))


class TransformerLayer(nnx.Module):
    """Self-attention, cross-attention and a gated MLP, each after a norm that the text adapts."""

    wrap: LayerWrapper = staticmethod(as_it_is)

    def __init__(self, hidden: int, heads: int, mlp: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the layer. The norm before the MLP takes off the mean, the others do not."""
        self.attention_norm = RMSNorm(hidden, **options)
        self.attention = SelfAttention(hidden, heads, **options)
        self.cross_norm = RMSNorm(hidden, **options)
        self.cross = CrossAttention(hidden, heads, **options)
        self.mlp_norm = Norm(hidden, **options)
        self.expand = Linear(hidden, 2 * mlp, **options)
        self.contract = Linear(mlp, hidden, **options)
        self.attention_adapt = Linear(hidden, 2 * hidden, **options)
        self.cross_adapt = Linear(hidden, 2 * hidden, **options)
        self.mlp_adapt = Linear(hidden, 2 * hidden, **options)

    def conditions(
        self, text: Float[Array, "B T D"], condition: Float[Array, "B D"]
    ) -> LayerConditions:
        """Returns what the layer gets of a text and of the vector of conditions."""
        active = jax.nn.silu(condition)
        adapts = (self.attention_adapt, self.cross_adapt, self.mlp_adapt)
        keys, values = self.cross.keys_values(text)[:, :, None]
        return LayerConditions(keys, values, jnp.stack([each(active) for each in adapts], axis=1))

    def __call__(
        self, tokens: Float[Array, "B N D"], conditions: LayerConditions
    ) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape."""
        keys, values, adapted = conditions
        normal = scaled_and_shifted(self.attention_norm(tokens), adapted[:, 0])
        tokens = tokens + self.attention(normal)
        normal = scaled_and_shifted(self.cross_norm(tokens), adapted[:, 1])
        tokens = tokens + self.cross(normal, keys[:, 0], values[:, 0])
        normal = scaled_and_shifted(self.mlp_norm(tokens), adapted[:, 2])
        linear, gate = jnp.split(self.expand(normal), 2, axis=-1)
        return tokens + self.contract(linear * jax.nn.gelu(gate, approximate=False))


class ResponseNorm(nnx.Module):
    """Divides each channel's norm over the grid by the mean norm of all channels.

    Source: Woo et al. 2023, "ConvNeXt V2", Algorithm 1.
    """

    def __init__(self, width: int, **options: Unpack[LayerOptions]) -> None:
        """Makes a norm that changes nothing."""
        self.dtype = options["dtype"]
        self.scale = nnx.Param(jnp.zeros(width, options["param_dtype"]))
        self.shift = nnx.Param(jnp.zeros(width, options["param_dtype"]))

    def __call__(self, features: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """Returns features of the same shape."""
        wide = features.astype(jnp.float32)
        response = jnp.linalg.norm(wide, axis=1, keepdims=True)
        share = response / (response.mean(axis=-1, keepdims=True) + SHORTEST_RESPONSE)
        scale, shift = (each[...].astype(jnp.float32) for each in (self.scale, self.shift))
        return (scale * (wide * share) + shift + wide).astype(self.dtype)


class DepthwiseConvolution(nnx.Module):
    """A convolution of 3 x 3 of each channel by itself, with zeros around the grid.

    It is nine shifted products: XLA's own takes 37 times as long on a CPU (768 channels, two grids
    of 16 x 16).
    """

    def __init__(self, channels: int, **options: Unpack[LayerOptions]) -> None:
        """Draws the kernel."""
        self.dtype = options["dtype"]
        drawn = nnx.initializers.lecun_normal()(
            options["rngs"].params(), (3, 3, 1, channels), options["param_dtype"]
        )
        self.kernel = nnx.Param(drawn)

    def __call__(self, grid: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Returns a grid of the same shape, summed up in float32."""
        height, width = grid.shape[1:3]
        padded = jnp.pad(grid.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = self.kernel[...].astype(jnp.float32)
        total = sum(
            padded[:, row : row + height, column : column + width] * kernel[row, column, 0]
            for row in range(3)
            for column in range(3)
        )
        return jnp.asarray(total, self.dtype)


class ConvolutionalBlock(nnx.Module):
    """A ConvNeXt block that the conditions adapt, and two cross-attentions to the text."""

    wrap: LayerWrapper = staticmethod(as_it_is)

    def __init__(
        self, channels: int, heads: int, hidden: int, **options: Unpack[LayerOptions]
    ) -> None:
        """Builds the block; text and conditions are `hidden` wide."""
        self.depthwise = DepthwiseConvolution(channels, **options)
        self.norm = RMSNorm(channels, **options)
        self.expand = Linear(channels, WIDER * channels, **options)
        self.response_norm = ResponseNorm(WIDER * channels, **options)
        self.contract = Linear(WIDER * channels, channels, **options)
        self.adapt = Linear(hidden, 2 * channels, **options)
        self.text = Linear(hidden, channels, **options)
        self.first_norm = RMSNorm(channels, **options)
        self.first = CrossAttention(channels, heads, **options)
        self.second_norm = RMSNorm(channels, **options)
        self.second = CrossAttention(channels, heads, **options)

    def conditions(
        self, text: Float[Array, "B T D"], condition: Float[Array, "B D"]
    ) -> LayerConditions:
        """Returns what the block gets of a text and of the vector of conditions."""
        mapped = self.text(jax.nn.silu(text))
        both = [each.keys_values(mapped) for each in (self.first, self.second)]
        keys, values = jnp.stack(both, axis=2)
        return LayerConditions(keys, values, self.adapt(jax.nn.silu(condition))[:, None])

    def __call__(
        self, tokens: Float[Array, "B N C"], conditions: LayerConditions
    ) -> Float[Array, "B N C"]:
        """Returns tokens of the same shape, those of a square grid row by row."""
        keys, values, adapted = conditions
        side = int(tokens.shape[1] ** 0.5)
        grid = tokens.reshape(tokens.shape[0], side, side, -1)
        inner = self.expand(self.norm(self.depthwise(grid).reshape(tokens.shape)))
        inner = self.response_norm(jax.nn.gelu(inner, approximate=False))
        tokens = scaled_and_shifted(tokens + self.contract(inner), adapted[:, 0])
        tokens = tokens + self.first(self.first_norm(tokens), keys[:, 0], values[:, 0])
        return tokens + self.second(self.second_norm(tokens), keys[:, 1], values[:, 1])


class Halving(nnx.Module):
    """A norm, and a convolution that makes one token of each square of four."""

    def __init__(self, channels: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the convolution as the matrix that it is: its kernels do not overlap."""
        self.norm = RMSNorm(channels, **options)
        self.project = Linear(4 * channels, channels, **options)

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B N/4 C"]:
        """Returns the tokens of a grid of half the side."""
        batch, count, channels = tokens.shape
        half = int(count**0.5) // 2
        squares = self.norm(tokens).reshape(batch, half, 2, half, 2, channels)
        return self.project(squares.swapaxes(2, 3).reshape(batch, half * half, 4 * channels))


class Doubling(nnx.Module):
    """A norm, and a transposed convolution that makes a square of four of each token."""

    def __init__(self, channels: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the convolution as the matrix that it is: its kernels do not overlap."""
        self.norm = RMSNorm(channels, **options)
        self.project = Linear(channels, 4 * channels, **options)

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B 4*N C"]:
        """Returns the tokens of a grid of twice the side."""
        batch, count, channels = tokens.shape
        side = int(count**0.5)
        squares = self.project(self.norm(tokens)).reshape(batch, side, side, 2, 2, channels)
        return squares.swapaxes(2, 3).reshape(batch, 4 * count, channels)
