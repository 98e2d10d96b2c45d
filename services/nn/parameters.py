"""Conversion of parameters between Flax NNX modules and flat, named arrays."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from services.runtime.checkpoints.errors import CheckpointMismatch

Module = TypeVar("Module", bound=nnx.Module)


def parameters_of(module: nnx.Module) -> dict[str, jax.Array]:
    """Returns the module's parameters by dotted path, such as "blocks.attention.query.kernel"."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): variable[...] for path, variable in flat}


def check_parameters(module: nnx.Module, parameters: Mapping[str, np.ndarray | jax.Array]) -> None:
    """Checks that parameters, by dotted path, are those of a module or of its shapes.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
    """
    flat = nnx.to_flat_state(nnx.state(module))
    shapes = {".".join(map(str, path)): tuple(variable.shape) for path, variable in flat}
    missing, unknown = sorted(shapes.keys() - parameters), sorted(parameters.keys() - shapes)
    if missing or unknown:
        raise CheckpointMismatch(
            f"the parameters are those of another model: missing {missing[:4]}"
            f"{' ...' if len(missing) > 4 else ''}, unknown {unknown[:4]}"
            f"{' ...' if len(unknown) > 4 else ''}"
        )
    for name, shape in shapes.items():
        if tuple(parameters[name].shape) != shape:
            raise CheckpointMismatch(
                f"parameter {name} has shape {tuple(parameters[name].shape)}: "
                f"this model needs {shape}"
            )


def with_parameters(
    build: Callable[[], Module],
    parameters: Mapping[str, np.ndarray | jax.Array],
    *,
    dtype: DTypeLike = jnp.float32,
    array: Callable[[np.ndarray | jax.Array, DTypeLike], np.ndarray | jax.Array] = jnp.asarray,
) -> Module:
    """Builds a module around given parameters, without initialising any of its own.

    Args:
        build: Builds the module; only its shapes are used.
        parameters: Arrays by dotted path; exactly those the module has.
        dtype: Type that float parameters are cast to; other variables keep their own type.
        array: Makes an array of a type. `jnp.asarray` puts it on the default device;
            `np.asarray` leaves it on the host, for the caller to place.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
    """
    abstract = nnx.eval_shape(build)
    check_parameters(abstract, parameters)
    graph, state = nnx.split(abstract)
    filled = []
    for path, variable in nnx.to_flat_state(state):
        value = parameters[".".join(map(str, path))]
        filled.append((path, variable.replace(array(value, _type_of(variable, dtype)))))
    return nnx.merge(graph, nnx.from_flat_state(filled))


def parameter_shapes(
    build: Callable[[], nnx.Module], *, dtype: DTypeLike
) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns what `nnx.split` returns of `with_parameters`, with shapes in place of arrays."""
    graph, state = nnx.split(nnx.eval_shape(build))
    return graph, nnx.from_flat_state(
        (
            path,
            variable.replace(jax.ShapeDtypeStruct(variable.shape, _type_of(variable, dtype))),
        )
        for path, variable in nnx.to_flat_state(state)
    )


def _type_of(variable: nnx.Variable, dtype: DTypeLike) -> DTypeLike:
    """Returns the type in which a variable is served, with float parameters of type `dtype`."""
    cast = isinstance(variable, nnx.Param) and jnp.issubdtype(variable.dtype, jnp.floating)
    return dtype if cast else variable.dtype
