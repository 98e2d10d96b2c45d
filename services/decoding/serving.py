"""How a pool is laid out on the device that is there."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from services.runtime.checkpoints.precision import Weights, check_weights, precision_name


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Devices, slots and precision of a pool.

    Attributes:
        slots: Decodes that run at a time.
        dtype: Of parameters and matrix products.
        shards: Devices that the network is spread over.
        weights: How the matrices of the blocks are kept.
    """

    slots: int
    dtype: DTypeLike
    shards: int = 1
    weights: Weights = "full"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, got {self.slots}")
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

    A CPU computes in float32, an accelerator in bfloat16.

    Args:
        slots: Decodes that run at a time.
        shards: Devices that the network is spread over.
        weights: How the matrices of the blocks are kept.
    """
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return Layout(slots=slots, dtype=dtype, shards=shards, weights=weights)
