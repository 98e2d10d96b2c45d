"""Attention: over a whole sequence, over a cached context, and over two axes of a grid.

Queries and keys are RMS-normalised per head with a learned scale before they meet. The paper does
not state that; it keeps the logits of deep stacks bounded in bfloat16 (DESIGN 4.5 allows it).
Softmax is in float32.

A layer may have a share of the heads only, the others being on other devices: then `whole` gathers
what all heads saw, and the columns that each device made of it (services/nn/sharding.py).

Source: Vaswani et al. 2017; Zhao et al. 2021, "Improved Transformer for High-Resolution GANs"
(multi-axis); Henry et al. 2020, "Query-Key Normalization for Transformers".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from services.nn.gathering import whole
from services.nn.projection import Projection

HIDDEN_SCORE = -1e30  # finite, so that a row with nothing to attend to gives a mean and not NaN


class Context(NamedTuple):
    """What a decode attends to at every step, computed once (DESIGN 4.7).

    Attributes:
        keys: Keys of every layer's cross-attention.
        values: Their values.
        length: Positions of each row that exist, at least 1; the rest of them is padding.
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
    """Scaled dot-product attention.

    A GPU computes it in bfloat16 by cuDNN's fused kernel, which never writes the scores: at
    superres's 4096 positions they are more bytes than all else in a layer.

    Args:
        queries: One per position that looks.
        keys: One per position looked at.
        values: What those positions hold.
        length: Leading positions that may be looked at, at least 1; all of them if absent.
    """
    if _fused(queries):
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
        scores = jnp.where(visible[:, None, None, :], scores, HIDDEN_SCORE)
    # Softmax, but for its division, which is of fewer numbers once the values are in.
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))  # cancels out
    weights = jnp.exp(scores - highest)
    seen = jnp.einsum(
        "bhnt,bhtk->bhnk",
        weights.astype(values.dtype),
        values.transpose(by_head),
        preferred_element_type=jnp.float32,
    )
    seen = seen / weights.sum(axis=-1, keepdims=True)
    return seen.astype(values.dtype).transpose(by_head)


def _fused(queries: Array) -> bool:
    """Returns whether cuDNN's kernel attends from queries."""
    return jax.default_backend() == "gpu" and queries.dtype == jnp.bfloat16


def attend_both(
    queries: Float[Array, "2*B N H K"],
    keys: Float[Array, "B T H K"],
    values: Float[Array, "B T H K"],
    length: Int[Array, " B"],
    *,
    common: int,
) -> Float[Array, "2*B N H K"]:
    """Attention of rows to what they may look at, and of as many more to the start of the same.

    A GPU computes all rows in one call, and skips what is hidden from the latter.

    Args:
        queries: Of the former rows, then of the latter.
        keys: Of the former.
        values: Of the former.
        length: Leading positions that the former look at.
        common: Leading positions that the latter look at.
    """
    shorter = jnp.full_like(length, common)
    if _fused(queries):
        keys, values = (jnp.concatenate([array, array]) for array in (keys, values))
        return attend(queries, keys, values, jnp.concatenate([length, shorter]))
    former, latter = jnp.split(queries, 2)
    seen = attend(former, keys, values, length)
    seen_by_latter = attend(latter, keys[:, :common], values[:, :common], shorter)
    return jnp.concatenate([seen, seen_by_latter])


def attend_within_blocks(
    queries: Float[Array, "B N H K"],
    keys: Float[Array, "B N H K"],
    values: Float[Array, "B N H K"],
    *,
    block: int,
) -> Float[Array, "B N H K"]:
    """Attention of every position of a square grid to its own block of `block` x `block`."""
    return _attend_in_groups(queries, keys, values, block=block, group_axes=(1, 3))


def attend_across_blocks(
    queries: Float[Array, "B N H K"],
    keys: Float[Array, "B N H K"],
    values: Float[Array, "B N H K"],
    *,
    block: int,
) -> Float[Array, "B N H K"]:
    """Attention of every position of a square grid to the same offset in every block."""
    return _attend_in_groups(queries, keys, values, block=block, group_axes=(2, 4))


def _attend_in_groups(
    queries: Float[Array, "B N H K"],
    keys: Float[Array, "B N H K"],
    values: Float[Array, "B N H K"],
    *,
    block: int,
    group_axes: tuple[int, int],
) -> Float[Array, "B N H K"]:
    """Attends within the groups that share their place along two of the four grid axes.

    The grid is [block row, row in block, block column, column in block], axes 1 to 4.
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


class HeadNorm(nnx.Module):
    """RMS normalisation of each head, in float32, with a learned scale."""

    def __init__(self, width: int, *, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        """Normalises over the last `width` numbers."""
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones((width,), param_dtype))

    def __call__(self, heads: Float[Array, "... K"]) -> Float[Array, "... K"]:
        """Returns heads of about unit root mean square, times the scale."""
        wide = heads.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6)
        return (wide * scale * self.scale[...].astype(jnp.float32)).astype(self.dtype)


class SelfAttention(nnx.Module):
    """Every position to every position; one projection makes queries, keys and values."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Builds the projections, without biases.

        The keys' projection starts as the queries': like looks at like, so that a position first
        looks around itself, which training would have to find out from little.

        Source: Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers".
        """
        self.heads = heads
        kinds: dict[str, Any] = {
            "use_bias": False,
            "rngs": rngs,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.project = Projection(hidden, 3 * hidden, **kinds)
        drawn = self.project.kernel[...]
        self.project.kernel[...] = drawn.at[:, hidden : 2 * hidden].set(drawn[:, :hidden])
        self.output = Projection(hidden, hidden, **kinds)
        self.query_norm = HeadNorm(hidden // heads, dtype=dtype, param_dtype=param_dtype)
        self.key_norm = HeadNorm(hidden // heads, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns what each position gathered."""
        gathered = whole(attend(*self.heads_of(tokens)), axis=2)
        return whole(self.output(gathered.reshape(tokens.shape)))

    def heads_of(
        self, tokens: Float[Array, "B N D"]
    ) -> tuple[Float[Array, "B N H K"], Float[Array, "B N H K"], Float[Array, "B N H K"]]:
        """Returns the queries, keys and values of the heads here, queries and keys normalised."""
        batch, count, hidden = tokens.shape
        split = self.project(tokens).reshape(batch, count, 3, -1, hidden // self.heads)
        return self.query_norm(split[:, :, 0]), self.key_norm(split[:, :, 1]), split[:, :, 2]


class MultiAxisAttention(nnx.Module):
    """One half of the heads within blocks of a grid, the other half across them.

    Both halves share one projection in and one projection out; they run side by side, unlike
    MaxViT's sequence of a block layer and a grid layer.

    Source: Zhao et al. 2021, section 3.2; Muse, section 2.4.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        block: int,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Builds the projections for an even number of heads and blocks of `block` tokens."""
        self.block = block
        self.attention = SelfAttention(
            hidden, heads, rngs=rngs, dtype=dtype, param_dtype=param_dtype
        )

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns what each position of a square grid, row by row, gathered."""
        queries, keys, values = self.attention.heads_of(tokens)
        half = queries.shape[2] // 2
        near, far = slice(None, half), slice(half, None)
        within = attend_within_blocks(
            queries[:, :, near], keys[:, :, near], values[:, :, near], block=self.block
        )
        across = attend_across_blocks(
            queries[:, :, far], keys[:, :, far], values[:, :, far], block=self.block
        )
        gathered = whole(jnp.stack([within, across], axis=2), axis=3)
        return whole(self.attention.output(gathered.reshape(tokens.shape)))


class CrossAttention(nnx.Module):
    """Image positions to a context whose keys and values are made once."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Builds the projections, without biases; the context is `hidden` wide as well."""
        self.heads = heads
        kinds: dict[str, Any] = {
            "use_bias": False,
            "rngs": rngs,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.query = Projection(hidden, hidden, **kinds)
        self.key_value = Projection(hidden, 2 * hidden, **kinds)
        self.output = Projection(hidden, hidden, **kinds)
        self.query_norm = HeadNorm(hidden // heads, dtype=dtype, param_dtype=param_dtype)
        self.key_norm = HeadNorm(hidden // heads, dtype=dtype, param_dtype=param_dtype)

    def share_initial_projection(self) -> None:
        """Starts the keys' projection as a copy of the queries': like looks at like."""
        hidden = self.query.kernel.shape[0]
        kernel = self.key_value.kernel[...]
        self.key_value.kernel[...] = kernel.at[:, :hidden].set(self.query.kernel[...])

    def keys_values(
        self, context: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B T H K"], Float[Array, "B T H K"]]:
        """Returns what heads here see of the context, which no decoding step changes."""
        batch, count, hidden = context.shape
        split = self.key_value(context).reshape(batch, count, 2, -1, hidden // self.heads)
        return self.key_norm(split[:, :, 0]), split[:, :, 1]

    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
    ) -> Float[Array, "B N D"]:
        """Returns what each image position gathered from the context's first `length` positions."""
        return self._output(attend(self._queries(tokens), keys, values, length))

    def both(
        self,
        tokens: Float[Array, "2*B N D"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        length: Int[Array, " B"],
        *,
        common: int,
    ) -> Float[Array, "2*B N D"]:
        """Returns the same of rows, then of as many that gather from the first `common` only."""
        return self._output(attend_both(self._queries(tokens), keys, values, length, common=common))

    def _queries(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N H K"]:
        batch, count, hidden = tokens.shape
        queries = self.query(tokens).reshape(batch, count, -1, hidden // self.heads)
        return self.query_norm(queries)

    def _output(self, seen: Float[Array, "B N H K"]) -> Float[Array, "B N D"]:
        gathered = whole(seen, axis=2)
        return whole(self.output(gathered.reshape(*gathered.shape[:2], -1)))
