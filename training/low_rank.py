"""Low-rank adapters of a model's stacks: a learned product beside each frozen matrix.

A layer computes x W + alpha / rank * (x A) B. B starts at zero, so an untrained adapter changes
nothing. The sum W + A B is never made: its gradient would be as large as that of W.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from services.nn.projection import Projection
from services.nn.stacks import STACKS
from services.runtime.checkpoints.adapters import FACTOR_A, FACTOR_B, LowRank

Module = TypeVar("Module", bound=nnx.Module)
_PRODUCT = ".dot_general"  # where `nnx.Linear` keeps its product of matrices, which is replaced


class LowRankProduct(nnx.Module):
    """The product of a projection and its adapter, in place of the product of the projection."""

    def __init__(self, projection: Projection, low_rank: LowRank, *, rngs: nnx.Rngs) -> None:
        """Draws A from a Gaussian of variance 1 / inputs; B is zero.

        Args:
            projection: Its kernel may be a stack of layers; so are then A and B.
            low_rank: Size and weight of the adapter.
            rngs: Source of A.
        """
        *stack, inputs, outputs = projection.kernel.shape
        self.product, self.scale = projection.dot_general, low_rank.scale
        drawn = jax.random.normal(rngs.params(), (*stack, inputs, low_rank.rank))
        self.lora_a = nnx.Param(drawn * inputs**-0.5)
        self.lora_b = nnx.Param(jnp.zeros((*stack, low_rank.rank, outputs)))

    def __call__(
        self, inputs: Float[Array, "N D"], kernel: Float[Array, "D M"], dimensions: Any, **how: Any
    ) -> Float[Array, "N M"]:
        """Returns inputs times kernel, plus the adapter; arguments as of `lax.dot_general`."""

        def times(left: Array, right: Array) -> Array:
            return self.product(left, right.astype(left.dtype), dimensions, **how)

        adapted = times(times(inputs, self.lora_a[...]), self.lora_b[...])
        return times(inputs, kernel) + self.scale * adapted


def with_adapters(model: Module, low_rank: LowRank, *, rngs: nnx.Rngs) -> Module:
    """Adds an adapter to every matrix of attention, cross-attention and MLP; returns the model."""
    for stack in (getattr(model, name) for name in STACKS if hasattr(model, name)):
        for _, module in list(nnx.iter_graph(stack)):
            if isinstance(module, Projection):
                module.dot_general = nnx.data(LowRankProduct(module, low_rank, rngs=rngs))
    return model


def is_factor(name: str) -> bool:
    """Returns whether a parameter of a model with adapters is an A or a B."""
    return name.endswith((FACTOR_A, FACTOR_B))


def stored_name(name: str) -> str:
    """Returns the name of a factor in an adapter's file, such as "blocks.mlp.expand.lora_a"."""
    return name.replace(_PRODUCT, "")
