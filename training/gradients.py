"""Gradients of a batch that is computed in parts, one after the other, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from training.optimizers import Parameters

Loss = Callable[[Parameters, PyTree[Array]], tuple[Float[Array, ""], Any]]


def accumulated_gradients(
    loss: Loss, params: Parameters, batch: PyTree[Array], parts: int
) -> tuple[tuple[Float[Array, ""], Any], Parameters]:
    """Sums the loss, its further results and its gradients over the parts of a batch.

    Args:
        loss: Maps parameters and a part of the batch to the part's share of the loss and to
            further results, which add up too: a mean has to divide by what the whole batch has.
        params: What the gradients are taken of.
        batch: Arrays whose first axis are examples.
        parts: How many; it divides the number of examples.

    Returns:
        Loss and further results, then the gradients: those of the batch as a whole.
    """
    gradients_of = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return gradients_of(params, batch)

    # Part i takes every `parts`-th example: each device finds its share of it among its own.
    divided = jax.tree.map(
        lambda rows: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda rows: rows[0], divided)
    zeros = jax.tree.map(
        lambda result: jnp.zeros(result.shape, result.dtype),
        jax.eval_shape(gradients_of, params, first),
    )

    def add(total: Any, part: PyTree[Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients_of(params, part)), None

    total, _ = jax.lax.scan(add, zeros, divided)
    return total
