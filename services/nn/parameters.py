"""Moves parameters between Flax NNX modules and flat, named arrays."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from services.runtime.checkpoints import CheckpointMismatch

Module = TypeVar("Module", bound=nnx.Module)


def parameters_of(module: nnx.Module) -> dict[str, jax.Array]:
    """Returns the module's parameters by dotted path, such as "blocks.attention.query.kernel"."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): variable[...] for path, variable in flat}


def parameter_count(build: Callable[[], nnx.Module]) -> int:
    """Counts the parameters of the module that `build` would make; allocates nothing."""
    abstract = nnx.eval_shape(build)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))


def with_parameters(
    build: Callable[[], Module],
    parameters: Mapping[str, np.ndarray | jax.Array],
    *,
    dtype: DTypeLike = jnp.float32,
    array: Callable[[Any, DTypeLike], Any] = jnp.asarray,
) -> Module:
    """Builds a module around given parameters, without initialising any of its own.

    Args:
        build: Makes the module; only its shapes are used.
        parameters: Arrays by dotted path; exactly those the module has.
        dtype: What float parameters are cast to.
        array: Makes an array of a type. By default on the default device; `numpy.asarray` leaves
            them where the caller can place them.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
    """
    graph, state = nnx.split(nnx.eval_shape(build))
    flat = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    missing, unknown = sorted(flat.keys() - parameters), sorted(parameters.keys() - flat)
    if missing or unknown:
        raise CheckpointMismatch(
            f"the parameters are those of another model: missing {missing[:4]}"
            f"{' ...' if len(missing) > 4 else ''}, unknown {unknown[:4]}"
            f"{' ...' if len(unknown) > 4 else ''}"
        )
    filled = []
    for name, (path, variable) in flat.items():
        value = parameters[name]
        if tuple(value.shape) != tuple(variable.shape):
            raise CheckpointMismatch(
                f"parameter {name} has shape {tuple(value.shape)}: "
                f"this model needs {tuple(variable.shape)}"
            )
        floating = jnp.issubdtype(variable.dtype, jnp.floating)
        filled.append((path, variable.replace(array(value, dtype if floating else variable.dtype))))
    return nnx.merge(graph, nnx.from_flat_state(filled))
