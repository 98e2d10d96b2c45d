"""The matrices of an unrolled stack one by one, arguments of programs that run it step by step.

A stack is one array of all layers (services/nn/transformer.py), and where its layers are unrolled
a program slices it. XLA's CPU backend copies what it slices, at every step: a seventh of the time
of a step of five to eight layers. Given apart, and put together in the program, nothing is copied:
XLA knows that a slice of what was stacked is what went in. A GPU multiplies by a slice where it
lies, but then a dispatch of one step of Muse-3B's base took 36 ms in place of 8.

Only matrices are given apart. Each argument costs the host some 3 us at every call, in which a GPU
rests; the scales of norms are small, and their slices are computed with what uses them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from services.nn.transformer import unrolled

STACKS = ("blocks", "low_blocks")


def apart(parameters: nnx.State) -> nnx.State:
    """Returns parameters with a tuple of matrices, one a layer, for each stack of them unrolled.

    Args:
        parameters: Of a masked transformer, as `nnx.split` gives them.
    """
    given_apart = {name for name in STACKS if name in parameters and unrolled(parameters[name])}

    def layers(path: tuple[Any, ...], array: jax.Array) -> Any:
        matrices = array.ndim > 2
        return tuple(array) if matrices and path[0].key in given_apart else array

    return jax.tree_util.tree_map_with_path(layers, parameters)


def together(parameters: nnx.State) -> nnx.State:
    """Undoes `apart`; leaves parameters that were never taken apart as they are."""

    def stack(given: Any) -> jax.Array:
        return jnp.stack(given) if isinstance(given, tuple) else given

    return jax.tree.map(stack, parameters, is_leaf=lambda node: isinstance(node, tuple))
