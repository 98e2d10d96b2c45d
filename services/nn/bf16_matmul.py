"""Matrix products of bfloat16 factors with float32 sums, in networks that are float32 elsewhere.

That is what a TPU does with float32 matrices by default, and what the matrix units of recent CPUs
(AMX, about five times their float32 rate) and GPUs want. XLA's CPU backend uses those units only
for bfloat16 factors with a float32 result, the left one contracted over its last axis; anything
else it silently computes in float32. So a product and its two gradients are written that way.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Module = TypeVar("Module", bound=nnx.Module)


class RoundsFactors:
    """A layer that can round the factors of its matrix products to bfloat16, and nothing else.

    Attributes:
        bf16_factors: Whether it does.
    """

    bf16_factors: bool = False


def with_bf16_factors(model: Module, *, kind: type[RoundsFactors] = RoundsFactors) -> Module:
    """Makes the layers of a float32 model round the factors of their products; returns the model.

    Args:
        model: Its parameters may be float32 or bfloat16.
        kind: Only layers of this class.
    """
    for _, module in nnx.iter_graph(model):
        if isinstance(module, kind):
            module.bf16_factors = True
    return model


def contract(
    left: Float[Array, "A C"], right: Float[Array, "..."], *, right_axis: int
) -> Float[Array, "A B"]:
    """Contracts the last axis of `left` with an axis of `right`, both rounded to bfloat16."""
    return lax.dot_general(
        left.astype(jnp.bfloat16),
        right.astype(jnp.bfloat16),
        (((1,), (right_axis,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def transposed(matrix: Float[Array, "A B"]) -> Float[Array, "B A"]:
    """Rounds a matrix to bfloat16 and transposes it, by products with an identity.

    XLA folds any other transpose into the products beside it, which then have no place on the
    matrix unit.
    """
    parts = [matrix[:, first : first + 64] for first in range(0, matrix.shape[1], 64)]
    identities = (jnp.eye(part.shape[1], dtype=jnp.bfloat16) for part in parts)
    return jnp.concatenate(
        [contract(one, part, right_axis=1) for one, part in zip(identities, parts, strict=True)]
    )


@jax.custom_vjp
def bf16_matmul(inputs: Float[Array, "N D"], kernel: Float[Array, "D M"]) -> Float[Array, "N M"]:
    """Multiplies two matrices; so do its gradients, each rounded to bfloat16 before."""
    return contract(inputs, kernel, right_axis=0)


def _forward(
    inputs: Float[Array, "N D"], kernel: Float[Array, "D M"]
) -> tuple[Array, tuple[Array, Array]]:
    kept = inputs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return bf16_matmul(*kept), kept


def _backward(
    kept: tuple[Array, Array], gradient: Float[Array, "N M"]
) -> tuple[Float[Array, "N D"], Float[Array, "D M"]]:
    inputs, kernel = kept
    gradient = gradient.astype(jnp.bfloat16)
    of_kernel = contract(transposed(inputs), gradient, right_axis=0)
    return contract(gradient, kernel, right_axis=1), of_kernel


bf16_matmul.defvjp(_forward, _backward)
