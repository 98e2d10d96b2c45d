"""One masked transformer over several devices, which compute the very numbers that one computes.

The devices form a mesh of one axis, "model". Each has some heads of every attention and some
columns of every matrix of a block; what lies outside the blocks (embeddings, text projection, head:
about a hundredth of Muse's base) each has whole. Every device computes its columns from whole
vectors, and the vectors are gathered before the next matrix. No sum is ever split: adding up parts
from several devices (Megatron's row-parallel matrices) sends less and rounds otherwise, and in
bfloat16 one prompt and seed would then give another picture on another number of devices.

Source: Shoeybi et al. 2019, "Megatron-LM", section 3, for heads and columns; not for its rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Shaped

from services.nn.attention import Context
from services.nn.gathering import AXIS
from services.nn.layers import STACKS

# Any: they stand where the arrays would, in a tree of the same shape.
WHOLE: Any = PartitionSpec()
HEADS: Any = PartitionSpec(None, None, None, AXIS, None)
CONTEXT = Context(keys=HEADS, values=HEADS, length=WHOLE)
# Matrices of a block, and how many lie side by side in each: every one is divided by itself. Of
# multi-axis attention, near and far heads are divided apart, so that each device has both.
SIDE_BY_SIDE = {
    "attention.project": 3,
    "attention.output": 1,
    "attention.attention.project": 6,
    "attention.attention.output": 1,
    "cross.query": 1,
    "cross.key_value": 2,
    "cross.output": 1,
    "mlp.expand": 1,
    "mlp.contract": 1,
}


def model_mesh(shards: int) -> Mesh | None:
    """Returns a mesh of the first so many devices of this host; None for a single one.

    Raises:
        ValueError: there are not so many.
    """
    devices = jax.local_devices()
    if shards > len(devices):
        raise ValueError(
            f"mesh: model={shards} takes {shards} devices, expected no more than this host has: "
            f"{devices[0].device_kind} x{len(devices)}"
        )
    return None if shards == 1 else Mesh(np.array(devices[:shards]), (AXIS,))


def check_divides(shards: int, counts: Mapping[str, int]) -> None:
    """Checks that what is divided among devices comes out even.

    Args:
        shards: How many devices.
        counts: What is divided, by name.

    Raises:
        ValueError: something does not.
    """
    for name, count in counts.items():
        if count % shards:
            largest = math.gcd(*counts.values())
            even = ", ".join(f"model={n}" for n in range(1, largest + 1) if largest % n == 0)
            raise ValueError(
                f"mesh: {count} {name} cannot be divided evenly among {shards} devices: "
                f"expected one of {even}, got model={shards}"
            )


def divisions(parameters: nnx.State) -> nnx.State:
    """Returns how each of a masked transformer's parameters is divided, as partition specs."""
    return nnx.from_flat_state(
        (path, variable.replace(_columns(variable) if _parts(path) else WHOLE))
        for path, variable in nnx.to_flat_state(parameters)
    )


def spread(parameters: nnx.State, mesh: Mesh) -> nnx.State:
    """Puts a masked transformer's parameters on the devices of a mesh.

    Args:
        parameters: As `nnx.split` gives them, in the order of a checkpoint.
        mesh: Of `model_mesh`, whose size divides the heads (the pairs of near and far heads of
            multi-axis attention) and the width of the MLP.

    Returns:
        The same, the columns of divided matrices in another order: those of a device lie together.
    """
    placed = []
    for path, variable in nnx.to_flat_state(parameters):
        array, parts = np.asarray(variable[...]), _parts(path)
        spec = _columns(array) if parts else WHOLE
        ordered = _by_device(array, parts, mesh.size) if parts else array
        placed.append((path, variable.replace(jax.device_put(ordered, NamedSharding(mesh, spec)))))
    return nnx.from_flat_state(placed)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns a tree of partition specs as one of shardings."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def bytes_on_each(specs: Any, shapes: Any, shards: int, *, dtype: DTypeLike | None = None) -> int:
    """Returns how many bytes each device holds of some arrays.

    Args:
        specs: How they are divided: a tree like theirs, or one that ends sooner.
        shapes: The arrays or their shapes, undivided.
        shards: Among how many devices.
        dtype: What float arrays are kept in; by default their own type.
    """

    def one(spec: PartitionSpec, shape: Any) -> int:
        floating = dtype is not None and jnp.issubdtype(shape.dtype, jnp.floating)
        size = math.prod(shape.shape) * jnp.dtype(dtype if floating else shape.dtype).itemsize
        return size // shards if AXIS in spec else size

    def below(spec: PartitionSpec, subtree: Any) -> int:
        return sum(one(spec, shape) for shape in jax.tree.leaves(subtree))

    return sum(jax.tree.leaves(jax.tree.map(below, specs, shapes)))


def _columns(array: Any) -> PartitionSpec:
    """Returns the partition of an array by its last axis."""
    return PartitionSpec(*[None] * (len(array.shape) - 1), AXIS)


def _parts(path: Sequence[Any]) -> int:
    """Returns how many matrices lie side by side in a parameter; 0 if it is not divided."""
    stack, _, name = ".".join(map(str, path)).partition(".")
    named = (parts for matrix, parts in SIDE_BY_SIDE.items() if name.startswith(f"{matrix}."))
    return next(named, 0) if stack in STACKS else 0


def _by_device(
    array: Shaped[np.ndarray, "*L M"], parts: int, shards: int
) -> Shaped[np.ndarray, "*L M"]:
    """Orders columns [part, device, column] as [device, part, column]."""
    apart = array.reshape(*array.shape[:-1], parts, shards, -1)
    return np.ascontiguousarray(apart.swapaxes(-3, -2)).reshape(array.shape)
