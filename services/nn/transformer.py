"""Transformer blocks, and stacks of them that `jax.lax.scan` runs.

A stack keeps one set of arrays with a leading layer axis, so that XLA compiles one block whatever
the depth. A shallow stack is unrolled: it compiles as fast, and training does not copy the
residuals of each layer's gradient into arrays of all layers.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from services.nn.attention import Context, CrossAttention
from services.nn.collectives import all_gather
from services.nn.compiling import target_platform
from services.nn.options import LayerOptions
from services.nn.projection import Projection

Module = TypeVar("Module", bound=nnx.Module)
EPSILON = 1e-6  # added to a mean square
FEW_LAYERS = 8  # a training step of the demo's base takes 0.7x as long unrolled, on one CPU core


# What `jax.lax.scan` runs of each layer: carry and (parameters, *inputs) to carry and output.
LayerStep = Callable[[PyTree[Array], tuple[Any, ...]], tuple[PyTree[Array], PyTree[Array]]]
LayerWrapper = Callable[[LayerStep], LayerStep]


def as_it_is(step: LayerStep) -> LayerStep:
    """Returns the step of a layer unchanged, as serving computes it."""
    return step


def stacked(build: Callable[[nnx.Rngs], Module], layers: int, rngs: nnx.Rngs) -> Module:
    """Builds `layers` modules, each from its own rngs, as one with a leading layer axis."""

    @nnx.split_rngs(splits=layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build_all(each: nnx.Rngs) -> Module:
        return build(each)

    return build_all(rngs)


class Norm(nnx.Module):
    """Layer normalisation in float32 with a scale and no bias.

    The variance is the mean square of the centred numbers. Flax's fast variance (mean of the
    squares less the square of the mean) loses digits, and a GPU needs several kernels for it.
    """

    def __init__(self, hidden: int, **options: Unpack[LayerOptions]) -> None:
        """Normalises over the last axis and returns `dtype`."""
        self.dtype = options["dtype"]
        wide: LayerOptions = {**options, "dtype": jnp.float32}
        self.norm = nnx.LayerNorm(hidden, use_bias=False, use_fast_variance=False, **wide)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of zero mean and unit variance, scaled."""
        return self.norm(tokens).astype(self.dtype)


class RMSNorm(nnx.Module):
    """Division by the root mean square, in float32, with a scale; no mean, no bias."""

    def __init__(self, width: int, **options: Unpack[LayerOptions]) -> None:
        """Makes a scale of ones."""
        self.dtype = options["dtype"]
        self.scale = nnx.Param(jnp.ones(width, options["param_dtype"]))

    def __call__(self, features: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns normalised features in the compute dtype."""
        wide = features.astype(jnp.float32)
        square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normal = (wide * jax.lax.rsqrt(square + EPSILON)).astype(self.dtype)
        return normal * self.scale[...].astype(self.dtype)


class FeedForward(nnx.Module):
    """Two layers with a GELU between them, ungated."""

    def __init__(self, hidden: int, width: int, **options: Unpack[LayerOptions]) -> None:
        """Builds hidden -> width -> hidden, without biases."""
        self.expand = Projection(hidden, width, use_bias=False, **options)
        self.contract = Projection(width, hidden, use_bias=False, **options)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape."""
        return all_gather(self.contract(all_gather(jax.nn.gelu(self.expand(tokens)))))


class EncoderBlock(nnx.Module):
    """Self-attention and MLP, each with a norm before it and a residual connection."""

    wrap: LayerWrapper = staticmethod(as_it_is)  # training sets another one

    def __init__(
        self, attention: nnx.Module, hidden: int, mlp: int, **options: Unpack[LayerOptions]
    ) -> None:
        """Wraps `attention`, a map of Float[B N D] to the same shape."""
        self.attention_norm = Norm(hidden, **options)
        self.attention = attention
        self.mlp_norm = Norm(hidden, **options)
        self.mlp = FeedForward(hidden, mlp, **options)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class DecoderBlock(nnx.Module):
    """Self-attention, cross-attention to a context, and MLP."""

    wrap: LayerWrapper = staticmethod(as_it_is)  # as of EncoderBlock

    def __init__(
        self,
        attention: nnx.Module,
        hidden: int,
        heads: int,
        mlp: int,
        **options: Unpack[LayerOptions],
    ) -> None:
        """Wraps `attention`, a map of Float[B N D] to the same shape."""
        self.attention_norm = Norm(hidden, **options)
        self.attention = attention
        self.cross_norm = Norm(hidden, **options)
        self.cross = CrossAttention(hidden, heads, **options)
        self.mlp_norm = Norm(hidden, **options)
        self.mlp = FeedForward(hidden, mlp, **options)

    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        gate: Bool[Array, " B"],
    ) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape; `gate` marks the rows that add cross-attention.

        Each row attends to the `length` leading positions of the context.
        """
        tokens = tokens + self.attention(self.attention_norm(tokens))
        cross_out = self.cross(self.cross_norm(tokens), keys, values, length)
        tokens = tokens + jnp.where(gate[:, None, None], cross_out, 0)
        return tokens + self.mlp(self.mlp_norm(tokens))

    def cfg_batch(
        self,
        tokens: Float[Array, "2*B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        *,
        shared_context_length: int,
    ) -> Float[Array, "2*B N D"]:
        """Returns tokens of the same shape: the conditional rows, then the unconditional rows.

        Conditional rows attend to the `length` leading positions of the context, unconditional rows
        to the first `shared_context_length`; 0 skips their cross-attention, which then adds zero.
        """
        tokens = tokens + self.attention(self.attention_norm(tokens))
        if shared_context_length:
            cross_out = self.cross.cfg_batch(
                self.cross_norm(tokens),
                keys,
                values,
                length,
                shared_context_length=shared_context_length,
            )
        else:
            cond = tokens[: tokens.shape[0] // 2]
            cond_out = self.cross(self.cross_norm(cond), keys, values, length)
            cross_out = jnp.pad(cond_out, ((0, cond.shape[0]), (0, 0), (0, 0)))
        tokens = tokens + cross_out
        return tokens + self.mlp(self.mlp_norm(tokens))


def encode(blocks: EncoderBlock, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Runs a stack of encoder blocks."""
    return scan_layers(blocks, lambda block, carry: (block(carry), None), tokens)[0]


def cross_keys_values(
    blocks: DecoderBlock, context: Float[Array, "B T D"]
) -> tuple[Float[Array, "L B T H K"], Float[Array, "L B T H K"]]:
    """Returns every layer's keys and values of a context."""
    return scan_layers(blocks, lambda block, _: (None, block.cross.keys_values(context)), None)[1]


def decode(
    blocks: DecoderBlock,
    tokens: Float[Array, "B N D"],
    context: Context,
    *,
    gate: Bool[Array, " B"],
) -> Float[Array, "B N D"]:
    """Runs a stack of decoder blocks over a context; `gate` as in `DecoderBlock`."""

    def layer(block: DecoderBlock, carry: Array, keys: Array, values: Array) -> tuple[Array, None]:
        return block(carry, keys, values, context.length, gate), None

    return scan_layers(blocks, layer, tokens, context.keys, context.values)[0]


def decode_cfg_batch(
    blocks: DecoderBlock,
    tokens: Float[Array, "B N D"],
    context: Context,
    *,
    shared_context_length: int,
) -> Float[Array, "2*B N D"]:
    """Runs a stack of decoder blocks for the conditional and the unconditional branch at once.

    One batch reads the weights once, and its matrix products are twice as tall: a chip that one
    image's tokens do not fill computes two rows in the time of one. Unconditional rows attend to
    the first `shared_context_length` positions.

    Returns:
        The conditional rows, then the unconditional rows (Muse, section 2.7).
    """

    def layer(block: DecoderBlock, carry: Array, keys: Array, values: Array) -> tuple[Array, None]:
        shared = shared_context_length
        batch = block.cfg_batch(carry, keys, values, context.length, shared_context_length=shared)
        return batch, None

    both = jnp.concatenate([tokens, tokens])
    return scan_layers(blocks, layer, both, context.keys, context.values)[0]


class Block(Protocol):
    """A layer, or a stack of equal layers whose arrays have a leading layer axis."""

    wrap: LayerWrapper


def scan_layers(
    blocks: Block,
    layer: Callable[..., tuple[PyTree[Array], PyTree[Array]]],
    carry: PyTree[Array],
    *inputs: Array,
) -> tuple[Any, Any]:
    """Runs `layer` of each block, a carry and the block's slice of each input."""
    graph, state = nnx.split(blocks)

    def step(carry: PyTree[Array], scanned: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
        parameters, *own = scanned
        return layer(nnx.merge(graph, parameters), carry, *own)

    return jax.lax.scan(blocks.wrap(step), carry, (state, *inputs), unroll=unrolled(state))


def unrolled(stack: nnx.State) -> bool:
    """Returns whether `jax.lax.scan` unrolls a stack of layers.

    It unrolls at most FEW_LAYERS layers, and on a GPU every stack: in a loop a GPU copies each
    layer's weights before it multiplies by them, which took a fifth of an image of Muse-3B. On a
    GPU a deep int8 stack stays a loop: unrolled, XLA may keep a float copy of all of it.
    """
    leaves = jax.tree.leaves(stack)
    few: bool = leaves[0].shape[0] <= FEW_LAYERS
    quantized = any(leaf.dtype == jnp.int8 for leaf in leaves)
    return few or (target_platform() == "gpu" and not quantized)
