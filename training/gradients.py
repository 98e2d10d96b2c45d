"""A batch computed in parts, one after the other, to save memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

Total = TypeVar("Total")
Rows = TypeVar("Rows")


def accumulated(
    compute: Callable[[Any], tuple[Total, Rows]], batch: PyTree[Array], parts: int
) -> tuple[Total, Rows]:
    """Computes the parts of a batch, sums what is of all examples, and joins what is of each.

    Args:
        compute: Maps a part to what adds up, such as gradients, and to arrays whose first axis are
            the part's examples. What shall be a mean over the batch divides by what the whole batch
            has.
        batch: Arrays whose first axis are examples.
        parts: How many; it divides the number of examples.

    Returns:
        Both as `compute` would return them of the batch as a whole.
    """
    if parts == 1:
        return compute(batch)

    # Part i takes every `parts`-th example: each device finds its share of it among its own.
    divided = jax.tree.map(
        lambda rows: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda rows: rows[0], divided)
    shapes, _ = jax.eval_shape(compute, first)
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def add(total: Any, part: PyTree[Array]) -> tuple[Any, Any]:
        more, rows = compute(part)
        return jax.tree.map(jnp.add, total, more), rows

    total, rows = jax.lax.scan(add, zeros, divided)
    joined = jax.tree.map(lambda part: part.swapaxes(0, 1).reshape(-1, *part.shape[2:]), rows)
    return total, joined
