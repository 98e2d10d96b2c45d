"""Collective operations of a layer whose weights are sharded (services/nn/sharding.py)."""

import jax
from jaxtyping import Array, Shaped

from services.mesh import MODEL_AXIS


def all_gather(array: Shaped[Array, "..."], axis: int = -1) -> Shaped[Array, "..."]:
    """Concatenates the devices' shards of an array along one axis.

    Outside of a sharded program the array is complete already and returned as it is.
    """
    if MODEL_AXIS not in jax.sharding.get_abstract_mesh().manual_axes:
        return array
    return jax.lax.all_gather(array, MODEL_AXIS, axis=axis, tiled=True)
