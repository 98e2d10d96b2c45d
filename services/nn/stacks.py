"""Stacked layer parameters passed to a compiled program one matrix at a time.

A stack is one array of all layers (services/nn/transformer.py), and a program that unrolls its
layers slices that array. XLA's CPU backend copies each slice at every step, which took a seventh
of a step of five to eight layers. When each layer's matrix is an argument of its own and the
program stacks them, XLA folds the slice of a stack into its argument and copies nothing. A GPU
multiplies by a slice in place, but a dispatch of one step of Muse-3B's base took 36 ms, not 8.

Only matrices become separate arguments. Each argument costs the host about 3 us per call, in which
a GPU idles; the scales of norms are small, and XLA fuses their slices into the operations that use
them.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import DictKey

from services.nn.transformer import unrolled

STACKS = ("blocks", "low_blocks", "down_blocks", "up_blocks")


def unstack(parameters: nnx.State) -> nnx.State:
    """Replaces each matrix of a masked transformer's unrolled stacks by one matrix per layer."""
    unstacked = {name for name in STACKS if name in parameters and unrolled(parameters[name])}

    def layers(path: tuple[DictKey, ...], array: jax.Array) -> jax.Array | tuple[jax.Array, ...]:
        is_matrix = array.ndim > 2
        return tuple(array) if is_matrix and path[0].key in unstacked else array

    return jax.tree_util.tree_map_with_path(layers, parameters)


def stack(parameters: nnx.State) -> nnx.State:
    """Reverses `unstack`; leaves parameters that were never unstacked as they are."""

    def joined(leaf: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
        return jnp.stack(leaf) if isinstance(leaf, tuple) else leaf

    return jax.tree.map(joined, parameters, is_leaf=lambda node: isinstance(node, tuple))
