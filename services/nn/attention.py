"""Attention: over a whole sequence, over a cached context, and over two axes of a grid.

Queries and keys are RMS-normalised per head with a learned scale before their product. That
deviates from the paper, and keeps the logits of deep stacks bounded in bfloat16. Softmax is in
float32.

A sharded layer holds some of the heads: `all_gather` then collects the outputs of all heads, and
the columns that each device computes of the output projection (services/nn/sharding.py).

Source: Vaswani et al. 2017; Zhao et al. 2021, "Improved Transformer for High-Resolution GANs"
(multi-axis); Henry et al. 2020, "Query-Key Normalization for Transformers".
"""

from functools import partial
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from services.nn.bf16_matmul import RoundsFactors
from services.nn.collectives import all_gather
from services.nn.compiling import target_platform
from services.nn.options import LayerOptions
from services.nn.projection import Projection

MASKED_SCORE = -1e30  # finite, so that a row with nothing to attend to gives a mean and not NaN


class Context(NamedTuple):
    """Cross-attention keys and values of every layer, computed once per decode.

    Attributes:
        keys: Keys of every layer's cross-attention.
        values: Values of every layer's cross-attention.
        length: Valid positions of each row, at least 1; the positions after them are padding.
    """

    keys: Float[Array, "L B T H K"]
    values: Float[Array, "L B T H K"]
    length: Int[Array, " B"]


def attend(
    queries: Float[Array, "B N H K"],
    keys: Float[Array, "B T H K"],
    values: Float[Array, "B T H K"],
    length: Int[Array, " B"] | None = None,
) -> Float[Array, "B N H K"]:
    """Computes scaled dot-product attention.

    A GPU computes it in bfloat16 by cuDNN's fused kernel, which never writes the scores: at
    superres's 4096 positions they are more bytes than all else in a layer. Each row attends to its
    `length` leading positions, at least 1; None means all of them.
    """
    if _has_fused_kernel(queries):
        return jax.nn.dot_product_attention(
            queries,
            keys,
            values,
            key_value_seq_lengths=None if length is None else jnp.maximum(length, 1),
            implementation="cudnn",
        )
    by_head = (0, 2, 1, 3)  # a CPU multiplies heads a fifth faster when each lies in one piece
    queries = queries.transpose(by_head) * queries.shape[-1] ** -0.5  # fewer than the scores
    scores = jnp.einsum(
        "bhnk,bhtk->bhnt", queries, keys.transpose(by_head), preferred_element_type=jnp.float32
    )
    if length is not None:
        visible = jnp.arange(keys.shape[1]) < length[:, None]
        scores = jnp.where(visible[:, None, None, :], scores, MASKED_SCORE)
    # Softmax, but for its division, which is of fewer numbers once the values are in.
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))  # cancels out
    weights = jnp.exp(scores - highest)
    mixed = jnp.einsum(
        "bhnt,bhtk->bhnk",
        weights.astype(values.dtype),
        values.transpose(by_head),
        preferred_element_type=jnp.float32,
    )
    mixed = mixed / weights.sum(axis=-1, keepdims=True)
    return mixed.astype(values.dtype).transpose(by_head)


def _has_fused_kernel(queries: Array) -> bool:
    """Returns whether cuDNN's fused kernel takes these queries."""
    return target_platform() == "gpu" and queries.dtype == jnp.bfloat16


def attend_cfg_batch(
    queries: Float[Array, "2*B N H K"],
    keys: Float[Array, "B T H K"],
    values: Float[Array, "B T H K"],
    length: Int[Array, " B"],
    *,
    shared_context_length: int,
) -> Float[Array, "2*B N H K"]:
    """Computes cross-attention of a CFG batch, whose two halves share keys and values.

    Conditional rows attend to `length` positions, unconditional rows to the first
    `shared_context_length`. A GPU computes all rows in one call and skips masked positions. The
    queries are those of the conditional rows, then of the unconditional rows.
    """
    uncond_length = jnp.full_like(length, shared_context_length)
    if _has_fused_kernel(queries):
        keys, values = (jnp.concatenate([array, array]) for array in (keys, values))
        return attend(queries, keys, values, jnp.concatenate([length, uncond_length]))
    cond, uncond = jnp.split(queries, 2)
    shared = slice(None, shared_context_length)
    return jnp.concatenate(
        [
            attend(cond, keys, values, length),
            attend(uncond, keys[:, shared], values[:, shared], uncond_length),
        ]
    )


def attend_in_groups(
    queries: Float[Array, "B N H K"],
    keys: Float[Array, "B N H K"],
    values: Float[Array, "B N H K"],
    *,
    block: int,
    group_axes: tuple[int, int],
) -> Float[Array, "B N H K"]:
    """Attends within the groups of positions that have two of four grid coordinates in common.

    The square grid is [block row, row in block, block column, column in block], axes 1 to 4.
    """
    batch, count, heads, width = queries.shape
    side = int(count**0.5)
    grid = (batch, side // block, block, side // block, block, heads, width)
    member_axes = tuple(axis for axis in (1, 2, 3, 4) if axis not in group_axes)
    order = (0, *group_axes, *member_axes, 5, 6)
    members = grid[member_axes[0]] * grid[member_axes[1]]

    def group(tokens: Float[Array, "B N H K"]) -> Float[Array, "G M H K"]:
        return tokens.reshape(grid).transpose(order).reshape(-1, members, heads, width)

    attended = attend(group(queries), group(keys), group(values))
    ordered = attended.reshape(tuple(grid[axis] for axis in order))
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return ordered.transpose(inverse).reshape(batch, count, heads, width)


attend_within_blocks = partial(attend_in_groups, group_axes=(1, 3))
"""Attends from every position to its own block of `block` x `block`."""
attend_across_blocks = partial(attend_in_groups, group_axes=(2, 4))
"""Attends from every position to the same offset in every block."""


class HeadNorm(nnx.Module, RoundsFactors):
    """RMS normalisation of each head, in float32, with a learned scale.

    Its results are factors of attention's products.
    """

    def __init__(self, width: int, **options: Unpack[LayerOptions]) -> None:
        """Makes a scale of ones for heads of `width` numbers."""
        self.dtype = options["dtype"]
        self.scale = nnx.Param(jnp.ones((width,), options["param_dtype"]))

    def __call__(self, heads: Float[Array, "... K"]) -> Float[Array, "... K"]:
        """Returns heads of about unit root mean square, times the scale."""
        wide = heads.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6)
        normal = wide * scale * self.scale[...].astype(jnp.float32)
        return normal.astype(jnp.bfloat16 if self.bf16_factors else self.dtype)


class SelfAttention(nnx.Module):
    """Self-attention over a whole sequence; one projection makes queries, keys and values."""

    def __init__(self, hidden: int, heads: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the projections, without biases.

        The keys' projection starts as a copy of the queries' projection. A fresh layer then
        attends to similar positions, near ones above all, which a small data set teaches slowly.

        Source: Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers".
        """
        self.heads = heads
        self.project = Projection(hidden, 3 * hidden, use_bias=False, **options)
        drawn = self.project.kernel[...]
        self.project.kernel[...] = drawn.at[:, hidden : 2 * hidden].set(drawn[:, :hidden])
        self.output = Projection(hidden, hidden, use_bias=False, **options)
        self.query_norm = HeadNorm(hidden // heads, **options)
        self.key_norm = HeadNorm(hidden // heads, **options)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns the attention output of each position."""
        attended = all_gather(attend(*self.heads_of(tokens)), axis=2)
        return all_gather(self.output(attended.reshape(tokens.shape)))

    def heads_of(
        self, tokens: Float[Array, "B N D"]
    ) -> tuple[Float[Array, "B N H K"], Float[Array, "B N H K"], Float[Array, "B N H K"]]:
        """Returns queries, keys and values of this device's heads, queries and keys normalised.

        Values have the type of the keys, since they are factors as well.
        """
        batch, count, hidden = tokens.shape
        split = self.project(tokens).reshape(batch, count, 3, -1, hidden // self.heads)
        keys = self.key_norm(split[:, :, 1])
        return self.query_norm(split[:, :, 0]), keys, split[:, :, 2].astype(keys.dtype)


class MultiAxisAttention(nnx.Module):
    """Attention over a grid: half of the heads within blocks, the other half across blocks.

    Both halves share one projection in and one projection out; they run side by side, unlike
    MaxViT's sequence of a block layer and a grid layer.

    Source: Zhao et al. 2021, section 3.2; Muse, section 2.4.
    """

    def __init__(
        self, hidden: int, heads: int, *, block: int, **options: Unpack[LayerOptions]
    ) -> None:
        """Builds the projections for an even number of heads and blocks of `block` tokens."""
        self.block = block
        self.attention = SelfAttention(hidden, heads, **options)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns the attention output of each position of a square grid, row by row."""
        queries, keys, values = self.attention.heads_of(tokens)
        half = queries.shape[2] // 2
        near, far = slice(None, half), slice(half, None)
        within = attend_within_blocks(
            queries[:, :, near], keys[:, :, near], values[:, :, near], block=self.block
        )
        across = attend_across_blocks(
            queries[:, :, far], keys[:, :, far], values[:, :, far], block=self.block
        )
        attended = all_gather(jnp.stack([within, across], axis=2), axis=3)
        return all_gather(self.attention.output(attended.reshape(tokens.shape)))


class CrossAttention(nnx.Module):
    """Attention from image positions to a context whose keys and values are computed once."""

    def __init__(self, hidden: int, heads: int, **options: Unpack[LayerOptions]) -> None:
        """Builds the projections, without biases; tokens and context are `hidden` wide."""
        self.heads = heads
        self.query = Projection(hidden, hidden, use_bias=False, **options)
        self.key_value = Projection(hidden, 2 * hidden, use_bias=False, **options)
        self.output = Projection(hidden, hidden, use_bias=False, **options)
        self.query_norm = HeadNorm(hidden // heads, **options)
        self.key_norm = HeadNorm(hidden // heads, **options)

    def share_initial_projection(self) -> None:
        """Copies the queries' projection to the keys, so that similar vectors attend first."""
        hidden = self.query.kernel.shape[0]
        kernel = self.key_value.kernel[...]
        self.key_value.kernel[...] = kernel.at[:, :hidden].set(self.query.kernel[...])

    def keys_values(
        self, context: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B T H K"], Float[Array, "B T H K"]]:
        """Returns the context's keys and values of this device's heads, both of one type."""
        batch, count, hidden = context.shape
        split = self.key_value(context).reshape(batch, count, 2, -1, hidden // self.heads)
        keys = self.key_norm(split[:, :, 0])
        return keys, split[:, :, 1].astype(keys.dtype)

    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
    ) -> Float[Array, "B N D"]:
        """Returns what each image position attends to in the first `length` context positions."""
        return self._output(attend(self._queries(tokens), keys, values, length))

    def cfg_batch(
        self,
        tokens: Float[Array, "2*B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        *,
        shared_context_length: int,
    ) -> Float[Array, "2*B N D"]:
        """Returns the attention output of a CFG batch; arguments as of `attend_cfg_batch`."""
        attended = attend_cfg_batch(
            self._queries(tokens),
            keys,
            values,
            length,
            shared_context_length=shared_context_length,
        )
        return self._output(attended)

    def _queries(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N H K"]:
        batch, count, hidden = tokens.shape
        queries = self.query(tokens).reshape(batch, count, -1, hidden // self.heads)
        return self.query_norm(queries)

    def _output(self, attended: Float[Array, "B N H K"]) -> Float[Array, "B N D"]:
        heads = all_gather(attended, axis=2)
        return all_gather(self.output(heads.reshape(*heads.shape[:2], -1)))
