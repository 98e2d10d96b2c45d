"""Tensor parallelism of a masked transformer, with the same bits on any number of devices.

The devices form a mesh of one axis, "model". Each device has some heads of every attention and some
columns of every matrix of a block. Parameters outside the blocks (embeddings, text projection,
head: about a hundredth of Muse's base) are replicated. Every device computes its columns from
complete vectors, and `all_gather` completes the vectors before the next matrix. Of an adapter's
factors each device has all of A, and the columns of B that go with its columns. No sum is ever
split: adding partial sums of several devices (Megatron's row-parallel matrices) sends less data but
rounds differently, and in bfloat16 a prompt and seed would give another image on another number of
devices.

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
from jaxtyping import Array, PyTree, Shaped

from services.mesh import MODEL_AXIS
from services.nn.attention import Context
from services.nn.stacks import STACKS

# Any: a partition spec takes the place of an array in a tree of the same structure.
REPLICATED: Any = PartitionSpec()
HEADS: Any = PartitionSpec(None, None, None, MODEL_AXIS, None)
# Matrices of a block, and how many of them are concatenated in one parameter: each is sharded by
# itself. Near and far heads of multi-axis attention are sharded separately: a device has both.
CONCATENATED = {
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

REPLICATED_IN_STACKS = (".adapter.lora_a", ".adapter.scale")


def model_mesh(shards: int, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """Returns a mesh of the first `shards` devices; None for a single device.

    Args:
        shards: Number of devices.
        devices: Those of a host to take them from; None for this host's.

    Raises:
        ValueError: the host has fewer devices.
    """
    devices = jax.local_devices() if devices is None else devices
    if shards > len(devices):
        raise ValueError(
            f"mesh: model={shards} takes {shards} devices, expected no more than the host has: "
            f"{devices[0].device_kind} x{len(devices)}"
        )
    return None if shards == 1 else Mesh(np.array(devices[:shards]), (MODEL_AXIS,))


def check_divides(shards: int, counts: Mapping[str, int]) -> None:
    """Checks that the devices share every count, such as that of the heads, evenly.

    Raises:
        ValueError: a count is no multiple of `shards`.
    """
    for name, count in counts.items():
        if count % shards:
            largest = math.gcd(*counts.values())
            even = ", ".join(f"model={n}" for n in range(1, largest + 1) if largest % n == 0)
            raise ValueError(
                f"mesh: {count} {name} cannot be divided evenly among {shards} devices: "
                f"expected one of {even}, got model={shards}"
            )


def context_specs(context: PyTree[Array]) -> PyTree[PartitionSpec]:
    """Returns the partition specs of the context of a decode: heads of a `Context` are divided."""

    def specs(part: Context | Array) -> Context | PartitionSpec:
        if isinstance(part, Context):
            return Context(keys=HEADS, values=HEADS, length=REPLICATED)
        return REPLICATED

    return jax.tree.map(specs, context, is_leaf=lambda part: isinstance(part, Context))


def partition_specs(parameters: nnx.State) -> nnx.State:
    """Returns the partition spec of each parameter of a masked transformer."""
    return nnx.from_flat_state(
        (path, variable.replace(_columns(variable.shape) if _parts(path) else REPLICATED))
        for path, variable in nnx.to_flat_state(parameters)
    )


def shard(parameters: nnx.State, mesh: Mesh) -> nnx.State:
    """Puts a masked transformer's parameters on the devices of a mesh.

    Args:
        parameters: As `nnx.split` returns them, in the order of a checkpoint.
        mesh: Of `model_mesh`, whose size divides the heads (the pairs of near and far heads of
            multi-axis attention) and the width of the MLP.

    Returns:
        The parameters, with the columns of sharded matrices reordered: each device has the columns
        of its heads, which a checkpoint does not keep together.
    """
    placed = []
    for path, variable in nnx.to_flat_state(parameters):
        array, parts = np.asarray(variable[...]), _parts(path)
        spec = _columns(array.shape) if parts else REPLICATED
        ordered = _by_device(array, parts, mesh.size) if parts else array
        placed.append((path, variable.replace(jax.device_put(ordered, NamedSharding(mesh, spec)))))
    return nnx.from_flat_state(placed)


def shardings(specs: PyTree[PartitionSpec], mesh: Mesh) -> PyTree[NamedSharding]:
    """Replaces every partition spec of a tree by its sharding over a mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def bytes_per_device(
    specs: PyTree[PartitionSpec],
    shapes: PyTree[jax.ShapeDtypeStruct],
    shards: int,
    *,
    dtype: DTypeLike | None = None,
) -> int:
    """Returns the bytes that each device holds of some arrays.

    `specs` is a tree like that of `shapes` or a prefix of it. Float arrays have the type `dtype` on
    the device, by default their own.
    """

    def one(spec: PartitionSpec, shape: jax.Array | jax.ShapeDtypeStruct) -> int:
        floating = dtype is not None and jnp.issubdtype(shape.dtype, jnp.floating)
        size = math.prod(shape.shape) * jnp.dtype(dtype if floating else shape.dtype).itemsize
        return size // shards if MODEL_AXIS in spec else size

    def below(spec: PartitionSpec, subtree: PyTree[jax.ShapeDtypeStruct]) -> int:
        return sum(one(spec, shape) for shape in jax.tree.leaves(subtree))

    return sum(jax.tree.leaves(jax.tree.map(below, specs, shapes)))


def _columns(shape: tuple[int, ...]) -> PartitionSpec:
    """Returns the partition spec that shards the last axis of a shape."""
    return PartitionSpec(*[None] * (len(shape) - 1), MODEL_AXIS)


def _parts(path: Sequence[object]) -> int:
    """Returns the number of matrices concatenated in a parameter; 0 if it is replicated."""
    stack, _, name = ".".join(map(str, path)).partition(".")
    if stack not in STACKS or name.endswith(REPLICATED_IN_STACKS):
        return 0
    named = (parts for matrix, parts in CONCATENATED.items() if name.startswith(f"{matrix}."))
    return next(named, 0)


def _by_device(
    array: Shaped[np.ndarray, "*L M"], parts: int, shards: int
) -> Shaped[np.ndarray, "*L M"]:
    """Orders columns [part, device, column] as [device, part, column]."""
    columns = array.reshape(*array.shape[:-1], parts, shards, -1)
    return np.ascontiguousarray(columns.swapaxes(-3, -2)).reshape(array.shape)
