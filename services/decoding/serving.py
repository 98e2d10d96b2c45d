"""How a pool is laid out on the device that is there."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from services.runtime.precision import Weights, check_weights, precision_name


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Devices, slots and precision of a pool.

    Attributes:
        slots: Decodes that run at a time.
        group: Rows computed together, a divisor of `slots`.
        dtype: Of parameters and matrix products.
        shards: Devices that the network is spread over.
        weights: How the matrices of the blocks are kept.
    """

    slots: int
    group: int
    dtype: DTypeLike
    shards: int = 1
    weights: Weights = "full"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.slots < 1 or self.group < 1 or self.slots % self.group:
            raise ValueError(
                f"slots {self.slots} must be a positive multiple of group {self.group}"
            )
        if self.shards < 1:
            raise ValueError(f"shards must be at least 1, got {self.shards}")

    @property
    def device(self) -> str:
        """What it is laid out on, such as "cpu x1"."""
        return f"{jax.devices()[0].device_kind} x{self.shards}"

    @property
    def precision(self) -> str:
        """Its name, such as "float32" or "int8+bfloat16"."""
        return precision_name(jnp.dtype(self.dtype).name, self.weights)


def layout_here(slots: int = 8, *, shards: int = 1, weights: Weights = "full") -> Layout:
    """Returns the layout for the default device.

    A CPU computes one row at a time in float32: a row keeps its cores busy, rows at rest cost
    nothing, and one without guidance costs one branch. An accelerator computes all slots together
    in bfloat16, and both branches of all of them while one is guided.

    Either way a row goes through the same arithmetic in any company, as long as the network gives
    each row of a batch what it would give it in any other place and company. That is tested for
    XLA's CPU backend, in groups of 1, 2 and 4; other backends are not measured yet.

    Args:
        slots: Decodes that run at a time.
        shards: Devices that the network is spread over.
        weights: How the matrices of the blocks are kept.
    """
    on_cpu = jax.default_backend() == "cpu"
    return Layout(
        slots=slots,
        group=1 if on_cpu else slots,
        dtype=jnp.float32 if on_cpu else jnp.bfloat16,
        shards=shards,
        weights=weights,
    )
