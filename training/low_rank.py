"""Low-rank adapters to train: a learned product beside each frozen matrix of a model's stacks.

A layer computes x W + ((x A) * alpha / rank) B. B starts at zero, so an untrained adapter changes
nothing. The sum W + A B is never made: its gradient would be as large as that of W.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from services.nn.low_rank import LowRankProduct, projections
from services.nn.projection import Projection
from services.nn.stacks import STACKS
from services.runtime.checkpoints.adapters import FACTOR_A, FACTOR_B, LowRank

Module = TypeVar("Module", bound=nnx.Module)
_PRODUCT = ".adapter"  # where a `Projection` keeps its `LowRankProduct`


def with_fresh_adapters(model: Module, low_rank: LowRank, *, rngs: nnx.Rngs) -> Module:
    """Adds an adapter to every matrix of attention, cross-attention and MLP; returns the model."""
    for path, projection in projections(model):
        if path.partition(".")[0] in STACKS:
            projection.adapter = _fresh(projection, low_rank, rngs)
    return model


def _fresh(projection: Projection, low_rank: LowRank, rngs: nnx.Rngs) -> LowRankProduct:
    """Draws A from a Gaussian of variance 1 / inputs; B is zero."""
    *stack, inputs, outputs = projection.kernel.shape
    drawn = jax.random.normal(rngs.params(), (*stack, inputs, low_rank.rank))
    return LowRankProduct(
        drawn * inputs**-0.5,
        jnp.zeros((*stack, low_rank.rank, outputs)),
        low_rank.scale,
        projection.dot_general,
    )


def is_factor(name: str) -> bool:
    """Returns whether a parameter of a model with adapters is an A or a B."""
    return name.endswith((FACTOR_A, FACTOR_B))


def stored_name(name: str) -> str:
    """Returns the name of a factor in an adapter's file, such as "blocks.mlp.expand.lora_a"."""
    return name.replace(_PRODUCT, "")
