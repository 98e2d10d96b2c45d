"""One masked transformer over several devices, which compute the very numbers that one computes.

The devices form a mesh of one axis, "model". Each has some heads of every attention and some
columns of every matrix of a block; what lies outside the blocks (embeddings, text projection, head:
about a hundredth of Muse's base) each has whole. Every device computes its columns from whole
vectors, and the vectors are gathered before the next matrix. No sum is ever split: adding up parts
from several devices (Megatron's row-parallel matrices) sends less and rounds otherwise, and in
bfloat16 one prompt and seed would then give another picture on another number of devices.

Source: Shoeybi et al. 2019, "Megatron-LM", section 3, for heads and columns; not for its rows.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from services.nn.attention import Context
from services.nn.gathering import AXIS

WHOLE = PartitionSpec()
HEADS = PartitionSpec(None, None, None, AXIS, None)
CONTEXT = Context(keys=HEADS, values=HEADS, mask=WHOLE, is_text=WHOLE)
STACKS = ("blocks", "low_blocks")
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
            f"mesh: expected model=1 to model={len(devices)}, the devices of this host "
            f"({devices[0].device_kind} x{len(devices)}), got model={shards}"
        )
    return None if shards == 1 else Mesh(np.array(devices[:shards]), (AXIS,))


def check_divides(shards: int, **counts: int) -> None:
    """Checks that what is divided among devices comes out even.

    Args:
        shards: How many devices.
        counts: What is divided, by name.

    Raises:
        ValueError: something does not.
    """
    for name, count in counts.items():
        if count % shards:
            even = [n for n in range(1, count + 1) if not any(c % n for c in counts.values())]
            raise ValueError(
                f"mesh: model={shards} does not divide this model's {count} "
                f"{name.replace('_', ' ')}: expected one of "
                f"{', '.join(f'model={n}' for n in even)}"
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
        array, parts = variable[...], _parts(path)
        if parts is None:
            placed.append((path, variable.replace(jax.device_put(array, _on(mesh, WHOLE)))))
            continue
        columns = PartitionSpec(*[None] * (array.ndim - 1), AXIS)
        ordered = _by_device(np.asarray(array), parts, mesh.size)
        placed.append((path, variable.replace(jax.device_put(ordered, _on(mesh, columns)))))
    return nnx.from_flat_state(placed)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns a tree of partition specs as one of shardings."""
    return jax.tree.map(
        lambda spec: _on(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)
    )


def _on(mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(mesh, spec)


def _parts(path: Sequence[Any]) -> int | None:
    """Returns how many matrices lie side by side in a parameter; None if it is not divided."""
    stack, *module, _ = map(str, path)
    return SIDE_BY_SIDE.get(".".join(module)) if stack in STACKS else None


def _by_device(
    array: Shaped[Array | np.ndarray, "*L M"], parts: int, shards: int
) -> Shaped[np.ndarray, "*L M"]:
    """Orders columns [part, device, column] as [device, part, column]."""
    apart = np.asarray(array).reshape(*array.shape[:-1], parts, shards, -1)
    return np.ascontiguousarray(apart.swapaxes(-3, -2)).reshape(array.shape)
