"""Functions computed with the rounding of a chip, so that what it would change shows on a CPU.

An accelerator rounds the float32 factors of a product whose precision no one has asked for: a TPU
to bfloat16, a GPU to TF32. bfloat16 is the coarser of the two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, PyTree

PRODUCTS = ("dot_general", "conv_general_dilated")


def as_a_chip_computes(function: Callable[..., PyTree[Array]]) -> Callable[..., PyTree[Array]]:
    """Returns a function whose products round float32 factors to bfloat16, as a TPU's do.

    Products of the highest precision stay as they are.
    """

    def rounded(*arguments: PyTree[Array]) -> PyTree[Array]:
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluated(traced, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return rounded


def _evaluated(closed: core.ClosedJaxpr, arguments: Sequence[Array]) -> list[Array]:
    program = closed.jaxpr
    values: dict[Any, Any] = dict(zip(program.constvars, closed.consts, strict=True))
    values |= zip(program.invars, arguments, strict=True)

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in program.eqns:
        results = _computed(equation, [value(each) for each in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [value(each) for each in program.outvars]


def _computed(equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    parameters, name = equation.params, equation.primitive.name
    if name in PRODUCTS and not _is_exact(parameters["precision"]):
        operands = [_rounded(each) for each in operands]
    if name == "scan":
        return _scanned(parameters, operands)
    if isinstance(parameters.get("jaxpr"), core.ClosedJaxpr):  # of a jitted function
        return _evaluated(parameters["jaxpr"], operands)
    if isinstance(parameters.get("call_jaxpr"), core.ClosedJaxpr):  # with a gradient of its own
        return _evaluated(parameters["call_jaxpr"], operands)
    results = equation.primitive.bind(*operands, **parameters)
    return results if equation.primitive.multiple_results else [results]


def _is_exact(precision: Any) -> bool:
    return precision is not None and set(precision) == {jax.lax.Precision.HIGHEST}


def _rounded(factor: Array) -> Array:
    return factor.astype(jnp.bfloat16).astype(factor.dtype)


def _scanned(parameters: dict[str, Any], operands: list[Any]) -> list[Any]:
    constants = operands[: parameters["num_consts"]]
    carried = operands[len(constants) :][: parameters["num_carry"]]
    scanned = operands[len(constants) + len(carried) :]

    def step(carry: list[Any], each: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluated(parameters["jaxpr"], [*constants, *carry, *each])
        return results[: len(carry)], results[len(carry) :]

    ended, made = jax.lax.scan(step, carried, scanned, length=parameters["length"])
    return [*ended, *made]
