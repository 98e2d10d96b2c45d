"""How a pool is laid out on the device that is there."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from services.runtime.precision import Weights, check_weights, precision_name


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Slots and precision of a pool.

    Attributes:
        slots: Decodes that run at a time.
        group: Rows computed together, a divisor of `slots`.
        dtype: Of parameters and matrix products.
        weights: How the matrices of the blocks are kept.
    """

    slots: int
    group: int
    dtype: DTypeLike
    weights: Weights = "full"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.slots < 1 or self.group < 1 or self.slots % self.group:
            raise ValueError(
                f"slots {self.slots} must be a positive multiple of group {self.group}"
            )

    @property
    def precision(self) -> str:
        """Its name, such as "float32" or "int8+bfloat16"."""
        return precision_name(jnp.dtype(self.dtype).name, self.weights)


def layout_here(slots: int = 8, weights: Weights = "full") -> Layout:
    """Returns the layout for the default device.

    A CPU computes one row at a time in float32: a row keeps its cores busy, rows at rest cost
    nothing, and one without guidance costs one branch. An accelerator computes all slots together
    in bfloat16, and both branches of all of them while one is guided.

    Either way a row goes through the same arithmetic in any company, as long as the network gives
    each row of a batch what it would give it in any other place and company. That is tested for
    XLA's CPU backend, in groups of 1, 2 and 4; other backends are not measured yet.

    Args:
        slots: Decodes that run at a time.
        weights: How the matrices of the blocks are kept.
    """
    if jax.default_backend() == "cpu":
        return Layout(slots=slots, group=1, dtype=jnp.float32, weights=weights)
    return Layout(slots=slots, group=slots, dtype=jnp.bfloat16, weights=weights)
