"""The arrays of a shallow stack one by one, as the arguments of programs that run it step by step.

A stack is one array of all layers (services/nn/transformer.py), and its few layers are unrolled, so
a program slices it. XLA's CPU backend copies what it slices, at every step: a seventh of the time
of a step of five to eight layers. Given apart, and put together in the program, nothing is copied:
XLA knows that a slice of what was stacked is what went in.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from services.nn.transformer import FEW_LAYERS

STACKS = ("blocks", "low_blocks")


def apart(parameters: nnx.State) -> nnx.State:
    """Returns parameters with a tuple of arrays, one a layer, for each array of a shallow stack.

    Args:
        parameters: Of a masked transformer, as `nnx.split` gives them.
    """

    def layers(path: tuple[Any, ...], array: jax.Array) -> Any:
        stacked = path[0].key in STACKS and array.shape[0] <= FEW_LAYERS
        return tuple(array) if stacked else array

    return jax.tree_util.tree_map_with_path(layers, parameters)


def together(parameters: nnx.State) -> nnx.State:
    """Undoes `apart`; leaves parameters that were never taken apart as they are."""

    def stack(given: Any) -> jax.Array:
        return jnp.stack(given) if isinstance(given, tuple) else given

    return jax.tree.map(stack, parameters, is_leaf=lambda node: isinstance(node, tuple))
