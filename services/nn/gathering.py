"""How a layer speaks of the devices it is spread over, if it is (services/nn/sharding.py)."""

import jax
from jaxtyping import Array, Shaped

AXIS = "model"


def whole(array: Shaped[Array, "..."], axis: int = -1) -> Shaped[Array, "..."]:
    """Returns all of an array of which each device has its share of one axis.

    On a single device that is the array itself.
    """
    if AXIS not in jax.sharding.get_abstract_mesh().manual_axes:
        return array
    return jax.lax.all_gather(array, AXIS, axis=axis, tiled=True)
