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


def _contract(
    left: Float[Array, "A C"], right: Float[Array, "..."], *, right_axis: int
) -> Float[Array, "A B"]:
    """Contracts the last axis of `left` with an axis of `right`."""
    return lax.dot_general(
        left.astype(jnp.bfloat16),
        right.astype(jnp.bfloat16),
        (((1,), (right_axis,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


@jax.custom_vjp
def bf16_matmul(inputs: Float[Array, "N D"], kernel: Float[Array, "D M"]) -> Float[Array, "N M"]:
    """Multiplies two matrices; so do its gradients, each rounded to bfloat16 before."""
    return _contract(inputs, kernel, right_axis=0)


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
    if inputs.shape[1] <= gradient.shape[1]:  # the narrower one is cheaper to transpose
        of_kernel = _over_rows(inputs, gradient)
    else:
        of_kernel = _over_rows(gradient, inputs).T
    return _contract(gradient, kernel, right_axis=1), of_kernel


def _over_rows(left: Float[Array, "N A"], right: Float[Array, "N B"]) -> Float[Array, "A B"]:
    """Contracts the rows of both, in two halves.

    A transpose right before a product is folded into it by XLA, and the product then has no place
    on the matrix unit; into a loop it is not.
    """
    rows = left.shape[0]
    halves = 2 if rows % 2 == 0 else 1
    lefts = left.reshape(halves, rows // halves, -1).transpose(0, 2, 1)
    rights = right.reshape(halves, rows // halves, -1)

    def add(total: Array, half: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _contract(*half, right_axis=0), None

    start = jnp.zeros((left.shape[1], right.shape[1]), jnp.float32)
    return lax.scan(add, start, (lefts, rights))[0]


bf16_matmul.defvjp(_forward, _backward)
