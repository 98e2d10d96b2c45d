"""Transformer blocks, and how a stack of them is kept and run.

A stack keeps one set of arrays with a leading layer axis and is run by `jax.lax.scan`: one block
is compiled, whatever the depth. Few layers are unrolled: they compile as fast, and training does
not copy what each layer keeps for its gradient into arrays of all layers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from services.nn.attention import Context, CrossAttention
from services.nn.gathering import whole
from services.nn.projection import Projection

Module = TypeVar("Module", bound=nnx.Module)
FEW_LAYERS = 8  # a training step of the demo's base takes 0.7x as long unrolled, on one CPU core


def stacked(build: Callable[[nnx.Rngs], Module], layers: int, rngs: nnx.Rngs) -> Module:
    """Builds `layers` modules as one, every parameter with a leading layer axis.

    Args:
        build: Makes one of them from its own source of randomness.
        layers: How many.
        rngs: Split between them.
    """

    @nnx.split_rngs(splits=layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build_all(each: nnx.Rngs) -> Module:
        return build(each)

    return build_all(rngs)


class Norm(nnx.Module):
    """Layer normalisation in float32 with a scale and no bias.

    The variance is the mean square of what is left without the mean: the mean of the squares less
    the square of the mean loses digits, and a GPU does not compute it in one kernel.
    """

    def __init__(
        self, hidden: int, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
    ) -> None:
        """Normalises over the last axis and returns `dtype`."""
        self.dtype = dtype
        self.norm = nnx.LayerNorm(
            hidden,
            use_bias=False,
            use_fast_variance=False,
            rngs=rngs,
            dtype=jnp.float32,
            param_dtype=param_dtype,
        )

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of zero mean and unit variance, scaled."""
        return self.norm(tokens).astype(self.dtype)


class FeedForward(nnx.Module):
    """Two layers with a GELU between them, ungated."""

    def __init__(
        self,
        hidden: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Builds hidden -> width -> hidden, without biases."""
        kinds: dict[str, Any] = {
            "use_bias": False,
            "rngs": rngs,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.expand = Projection(hidden, width, **kinds)
        self.contract = Projection(width, hidden, **kinds)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape."""
        return whole(self.contract(whole(jax.nn.gelu(self.expand(tokens)))))


class EncoderBlock(nnx.Module):
    """Self-attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        attention: nnx.Module,
        hidden: int,
        mlp: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Wraps `attention`, a map of Float[B N D] to the same shape."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.attention_norm = Norm(hidden, **kinds)
        self.attention = attention
        self.mlp_norm = Norm(hidden, **kinds)
        self.mlp = FeedForward(hidden, mlp, **kinds)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class DecoderBlock(nnx.Module):
    """Self-attention, cross-attention to a context, and MLP."""

    def __init__(
        self,
        attention: nnx.Module,
        hidden: int,
        heads: int,
        mlp: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Wraps `attention`, a map of Float[B N D] to the same shape."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.attention_norm = Norm(hidden, **kinds)
        self.attention = attention
        self.cross_norm = Norm(hidden, **kinds)
        self.cross = CrossAttention(hidden, heads, **kinds)
        self.mlp_norm = Norm(hidden, **kinds)
        self.mlp = FeedForward(hidden, mlp, **kinds)

    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        gate: Bool[Array, " B"],
    ) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape.

        Args:
            tokens: The image's positions.
            keys: Of the context.
            values: Of the context.
            length: Leading positions of the context that may be looked at.
            gate: Rows whose cross-attention is heard; the others get exactly nothing from it.
        """
        tokens = tokens + self.attention(self.attention_norm(tokens))
        heard = self.cross(self.cross_norm(tokens), keys, values, length)
        tokens = tokens + jnp.where(gate[:, None, None], heard, 0)
        return tokens + self.mlp(self.mlp_norm(tokens))

    def both(
        self,
        tokens: Float[Array, "2*B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        *,
        common: int,
    ) -> Float[Array, "2*B N D"]:
        """Returns tokens of the same shape, of both branches of guidance.

        Args:
            tokens: The image's positions: of rows that hear the text, then of the same without.
            keys: Of the context.
            values: Of the context.
            length: Leading positions of the context that those with the text look at.
            common: Leading positions that those without look at; at 0 they look at nothing, and
                no cross-attention is computed for them.
        """
        tokens = tokens + self.attention(self.attention_norm(tokens))
        if common:
            normal = self.cross_norm(tokens)
            tokens = tokens + self.cross.both(normal, keys, values, length, common=common)
        else:
            told = tokens[: tokens.shape[0] // 2]
            heard = self.cross(self.cross_norm(told), keys, values, length)
            tokens = tokens + jnp.pad(heard, ((0, told.shape[0]), (0, 0), (0, 0)))
        return tokens + self.mlp(self.mlp_norm(tokens))


def encode(blocks: EncoderBlock, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Runs a stack of encoder blocks."""
    graph, state = nnx.split(blocks)

    def layer(carry: Array, parameters: nnx.State) -> tuple[Array, None]:
        return nnx.merge(graph, parameters)(carry), None

    return jax.lax.scan(layer, tokens, state, unroll=unrolled(state))[0]


def cross_keys_values(
    blocks: DecoderBlock, context: Float[Array, "B T D"]
) -> tuple[Float[Array, "L B T H K"], Float[Array, "L B T H K"]]:
    """Returns every layer's keys and values of a context."""
    graph, state = nnx.split(blocks)

    def layer(carry: None, parameters: nnx.State) -> tuple[None, tuple[Array, Array]]:
        return carry, nnx.merge(graph, parameters).cross.keys_values(context)

    return jax.lax.scan(layer, None, state, unroll=unrolled(state))[1]


def decode(
    blocks: DecoderBlock,
    tokens: Float[Array, "B N D"],
    context: Context,
    *,
    gate: Bool[Array, " B"],
) -> Float[Array, "B N D"]:
    """Runs a stack of decoder blocks over a cached context.

    Args:
        blocks: The stack.
        tokens: The image's positions.
        context: Keys and values of every layer.
        gate: Rows whose cross-attention is heard.
    """
    graph, state = nnx.split(blocks)

    def layer(carry: Array, scanned: tuple[nnx.State, Array, Array]) -> tuple[Array, None]:
        parameters, keys, values = scanned
        return nnx.merge(graph, parameters)(carry, keys, values, context.length, gate), None

    scanned = (state, context.keys, context.values)
    return jax.lax.scan(layer, tokens, scanned, unroll=unrolled(state))[0]


def decode_both(
    blocks: DecoderBlock, tokens: Float[Array, "B N D"], context: Context, *, common: int
) -> Float[Array, "2*B N D"]:
    """Runs a stack of decoder blocks for both branches of guidance at once.

    As one batch they read the weights once, and their matrix products are twice as tall: a chip
    that one image's tokens do not fill computes two in the time of one.

    Args:
        blocks: The stack.
        tokens: The image's positions, the same for both.
        context: Keys and values of every layer.
        common: Leading positions of the context that rows without the text look at.

    Returns:
        Rows that hear the text, then the same rows without it (Muse, section 2.7).
    """
    graph, state = nnx.split(blocks)

    def layer(carry: Array, scanned: tuple[nnx.State, Array, Array]) -> tuple[Array, None]:
        parameters, keys, values = scanned
        block = nnx.merge(graph, parameters)
        return block.both(carry, keys, values, context.length, common=common), None

    both = jnp.concatenate([tokens, tokens])
    scanned = (state, context.keys, context.values)
    return jax.lax.scan(layer, both, scanned, unroll=unrolled(state))[0]


def unrolled(stack: nnx.State) -> bool:
    """Returns whether a stack's layers are computed one by one and not in a loop.

    Few are. On a GPU all are: in a loop it copies each layer's weights before it multiplies by
    them, which took a fifth of an image of Muse-3B. A stack in int8 never is: XLA may keep a copy
    of it in full.

    Args:
        stack: Arrays with a leading layer axis, or their shapes.
    """
    leaves = jax.tree.leaves(stack)
    few: bool = leaves[0].shape[0] <= FEW_LAYERS
    quantized = any(leaf.dtype == jnp.int8 for leaf in leaves)
    return few or (jax.default_backend() == "gpu" and not quantized)
