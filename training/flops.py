"""Floating-point operations of a program, counted in its jaxpr: products and convolutions."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def flops_of(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the operations of one call, loops counted as often as they run.

    A multiplication and the addition of its result are two. What remat computes again is not
    counted. XLA's own count (`cost_analysis`) takes the body of a loop once.

    Args:
        function: Traced, not computed.
        arguments: Arrays, or their shapes.
    """
    return flops_of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def flops_of_jaxpr(jaxpr: core.Jaxpr) -> float:
    """Returns the operations of a program that is traced already, but for those nothing needs."""
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _of_program(needed)


def _of_program(jaxpr: core.Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> float:
    parameters = equation.params
    made = math.prod(_shape(equation.outvars[0])) if equation.outvars else 0
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2 * math.prod(left[axis] for axis in contracted) * made
    if equation.primitive.name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(kernel) // outputs * made
    if equation.primitive.name == "cond":
        return max(_of_program(branch.jaxpr) for branch in parameters["branches"])
    times = parameters["length"] if equation.primitive.name == "scan" else 1
    if parameters.get("differentiated") and "prevent_cse" in parameters:
        times = 2 / 3  # of remat's backward pass: each product again, and two for its gradients
    return times * sum(_of_program(inner) for inner in _inner(parameters))


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(getattr(variable.aval, "shape", ()))


def _inner(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in parameters.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
