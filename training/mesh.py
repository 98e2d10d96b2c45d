"""The device mesh of a training run: its axes, which rows a process gives, how arrays are placed.

    data     examples are divided, parameters are not
    fsdp     examples are divided, and so are parameters, which are gathered where they are used
    tensor   the columns or rows of matrices are divided, examples are not

Source: Rajbhandari et al. 2020, "ZeRO", for fsdp; Shoeybi et al. 2019, "Megatron-LM", for tensor.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from services.nn.transformer import LayerStep

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def parse_mesh(text: str) -> dict[str, int]:
    """Returns the axes of a mesh such as "data=2,fsdp=64,tensor=2", those left out as 1.

    Raises:
        ValueError: an axis is unknown or named twice, or its size is no positive whole number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, count = (piece.strip() for piece in part.partition("="))
        if axis not in AXES or axis in sizes or not count.isdecimal() or int(count) < 1:
            raise ValueError(
                f"mesh: expected some of {', '.join(f'{axis}=N' for axis in AXES)}, each once and "
                f"N a whole number of devices, got {part.strip()!r} in {text!r}"
            )
        sizes[axis] = int(count)
    return {axis: sizes.get(axis, 1) for axis in AXES}


def training_mesh(text: str | None, devices: Sequence[jax.Device]) -> Mesh:
    """Arranges devices as a mesh.

    Args:
        text: As `parse_mesh` reads it; None divides the examples among all devices.
        devices: Those of all processes.

    Raises:
        ValueError: the mesh cannot be read, or has more or fewer devices than there are.
    """
    sizes = parse_mesh(text if text is not None else f"data={len(devices)}")
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh: {text} takes {math.prod(sizes.values())} devices, expected as many as there "
            f"are: {devices[0].device_kind} x{len(devices)}"
        )
    # By process, so that the rows of a process lie side by side.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(tuple(sizes.values())), AXES)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a step is computed: what changes its time and memory, and its result by rounding alone.

    Attributes:
        mesh: The devices.
        accumulate: Parts that a batch is divided into, one computed after the other.
        remat: Whether the backward pass computes the inside of each layer again.
    """

    mesh: Mesh
    accumulate: int = 1
    remat: bool = False

    def gathered(self, parameters: dict[str, Array]) -> dict[str, Array]:
        """Returns parameters as they are computed with: whole along fsdp, divided along tensor.

        Without this the compiler may leave a matrix divided and sum up activations instead, which
        are many times larger.
        """
        if self.mesh.size == 1:
            return parameters

        def gather(name: str, value: Array) -> Array:
            spec = spec_of(name, value.shape, self.mesh)
            whole = PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec))
            return jax.lax.with_sharding_constraint(value, NamedSharding(self.mesh, whole))

        return {name: gather(name, value) for name, value in parameters.items()}

    def layer_wrapper(self, step: LayerStep) -> LayerStep:
        """Wraps the step of a layer: gathers its parameters alone, and computes it again if asked.

        The examples stay divided by rows from layer to layer.
        """

        def wrapped(carry: PyTree[Array], scanned: tuple[Any, ...]) -> Any:
            parameters, *inputs = scanned
            if self.mesh.size > 1:
                flat = nnx.to_flat_state(parameters)
                values = self.gathered({".".join(map(str, path)): leaf[...] for path, leaf in flat})
                parameters = nnx.from_flat_state(
                    (path, leaf.replace(values[".".join(map(str, path))])) for path, leaf in flat
                )
                carry = jax.tree.map(
                    lambda rows: jax.lax.with_sharding_constraint(rows, self.by_rows), carry
                )
            return step(carry, (parameters, *inputs))

        return jax.checkpoint(wrapped) if self.remat else wrapped

    def check_batch(self, batch_size: int) -> None:
        """Checks that a batch can be divided.

        Raises:
            ValueError: it cannot.
        """
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        shards = math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)
        if batch_size % (shards * self.accumulate):
            raise ValueError(
                f"a batch of {batch_size} cannot be divided into {self.accumulate} parts of "
                f"{shards} shards (data x fsdp): expected a multiple of {shards * self.accumulate}"
            )

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of an array that every device has whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_rows(self) -> NamedSharding:
        """Sharding of an array whose rows are examples."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    def local_rows(self, batch_size: int) -> slice:
        """Returns which examples of a batch this process has to give."""
        indices = self.by_rows.addressable_devices_indices_map((batch_size,)).values()
        bounds = [index[0].indices(batch_size) for index in indices if index is not None]
        return slice(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))

    def placed(self, batch: PyTree[np.ndarray], batch_size: int) -> PyTree[Array]:
        """Makes global arrays of the examples that this process gives."""

        def place(rows: Shaped[np.ndarray, "b ..."]) -> Shaped[Array, "B ..."]:
            local = np.asarray(rows)
            return jax.make_array_from_process_local_data(
                self.by_rows, local, (batch_size, *local.shape[1:])
            )

        return jax.tree.map(place, batch)


def one_device() -> Execution:
    """Returns the execution on this process's first device."""
    return Execution(mesh=training_mesh("data=1", jax.local_devices()[:1]))


def spec_of(name: str, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Returns how a parameter is divided, by the end of its name; `RULES` has the table.

    An axis of the mesh that does not divide a dimension leaves it whole.

    Args:
        name: Dotted path of the parameter, such as "blocks.mlp.expand.kernel".
        shape: Its shape; that of a stack has the layers first.
        mesh: Of `training_mesh`.
    """
    for ending, axes in RULES.items():
        if name.endswith(ending) and len(shape) - len(axes) in (0, 1):
            break
    else:
        return PartitionSpec()
    stacked = len(shape) - len(axes)
    divided = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, shape[stacked:], strict=True)
    ]
    return PartitionSpec(*[None] * stacked, *divided)


_COLUMNS, _ROWS = ("fsdp", "tensor"), ("tensor", "fsdp")
RULES: Mapping[str, tuple[str | None, ...]] = {
    # Transformers: what makes heads or the width of the MLP, and what takes them back.
    "head.output.kernel": _COLUMNS,
    "project.kernel": _COLUMNS,
    "query.kernel": _COLUMNS,
    "key_value.kernel": _COLUMNS,
    "expand.kernel": _COLUMNS,
    "mix.kernel": _COLUMNS,
    "text_projection.kernel": _COLUMNS,
    "output.kernel": _ROWS,
    "contract.kernel": _ROWS,
    "embedding.token": (None, "fsdp"),
    # T5.
    "attention.query": _COLUMNS,
    "attention.key": _COLUMNS,
    "attention.value": _COLUMNS,
    "attention.output": _ROWS,
    "mlp.gate": _COLUMNS,
    "mlp.linear": _COLUMNS,
    "mlp.output": _ROWS,
    # Convolutions of the tokenizer and its discriminator: height, width, inputs, outputs.
    "kernel": (None, None, None, "fsdp"),
}


def state_shardings(state: PyTree[jax.ShapeDtypeStruct], mesh: Mesh) -> PyTree[NamedSharding]:
    """Returns the sharding of every array of a state.

    What an optimizer keeps of a parameter, shape for shape, is divided as that is. Adafactor's
    factors of the second moment have one axis less and stay whole: they are a thousandth of it.
    """

    def sharding(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        factored = any(getattr(part, "name", "") in ("v_row", "v_col") for part in path)
        spec = PartitionSpec() if factored or not names else spec_of(names[-1], leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)
