"""Counts of a model's parameters."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx


def parameter_count(build: Callable[[], nnx.Module]) -> int:
    """Returns the number of parameters of the module that `build` makes; allocates nothing."""
    abstract = nnx.eval_shape(build)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))
