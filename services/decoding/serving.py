"""Serving configuration of a pool: devices, slots, precision."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from services.nn.precision import precision_to_serve
from services.runtime.checkpoints.precision import (
    Precision,
    Weights,
    check_weights,
    precision_name,
)


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Devices, slots and precision of a pool.

    Attributes:
        slots: Decodes that run at a time, at least 1.
        dtype: Type of parameters and of the factors of matrix products.
        shards: Devices that share the network, at least 1.
        weights: Format of the matrices of the blocks.
        rows_at_once: Decodes that one call of the network computes, 1 to `slots`.
    """

    slots: int
    dtype: DTypeLike
    shards: int = 1
    weights: Weights = "full"
    rows_at_once: int = 1

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, got {self.slots}")
        if self.shards < 1:
            raise ValueError(f"shards must be at least 1, got {self.shards}")
        if not 1 <= self.rows_at_once <= self.slots:
            raise ValueError(
                f"rows: expected 1 to max_batch_size {self.slots}, got {self.rows_at_once}: a call "
                f"computes no more decodes than there are slots"
            )

    @property
    def device(self) -> str:
        """Kind and number of the devices, such as "cpu x1"."""
        return f"{jax.devices()[0].device_kind} x{self.shards}"

    @property
    def precision(self) -> str:
        """Name of the precision, such as "float32" or "int8+bfloat16"."""
        return precision_name(jnp.dtype(self.dtype).name, self.weights)


def default_serving_config(
    slots: int = 8,
    *,
    shards: int = 1,
    weights: Weights = "full",
    precision: Precision | None = None,
    rows_at_once: int = 1,
) -> ServingConfig:
    """Returns a serving configuration; without a precision, the one of the target platform."""
    dtype = jnp.dtype(precision_to_serve(precision))
    return ServingConfig(
        slots=slots, dtype=dtype, shards=shards, weights=weights, rows_at_once=rows_at_once
    )
