"""The compiled programs of a pool, on one device or over a mesh.

Over a mesh every device runs the same program on its shards of the parameters and contexts. The
state of every slot is replicated, and all devices draw the same noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.layout import Format
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array, Float, PyTree

from services.decoding import slots as slot_programs
from services.decoding.advance import advance
from services.decoding.slots import MaskedTransformer, Progress, Slots
from services.decoding.state import DecodeState, idle_state
from services.nn.compiling import Placement, Program, chooses_layouts, of_any_layout
from services.nn.low_rank import with_adapter_scale
from services.nn.sharding import REPLICATED, context_specs, partition_specs, shardings
from services.nn.stacks import stack, unstack


@dataclass(frozen=True, kw_only=True)
class CompiledPrograms:
    """The programs of a pool, ready to run.

    Attributes:
        context: Parameters, the scale of the adapters and the inputs of one row to the context of
            that row.
        empty: The context of one row, for its shapes, to slots that are all idle.
        admit: `services.decoding.slots.admit`; writes into the buffers of the slots.
        advance: Parameters, slots, a limit of steps and the slots that rest to the slots after
            these steps; writes into the buffers of the slots.
        read: `services.decoding.slots.read`.
        release: `services.decoding.slots.release`; writes into the buffers of the slots.
        parameter_formats: Formats in which the programs take the parameters; None is JAX's own.
    """

    context: Callable[..., PyTree[Array]]
    empty: Callable[[PyTree[Array]], Slots]
    admit: Callable[
        [Slots, np.int32, DecodeState, PyTree[Array], PyTree[Array], np.bool_, np.ndarray], Slots
    ]
    advance: Callable[[nnx.State, Slots, np.int32, np.ndarray], Slots]
    read: Callable[[Slots, np.int32], Progress]
    release: Callable[[Slots, np.int32], Slots]
    parameter_formats: PyTree[Format] | None


class PoolFunctions(NamedTuple):
    """The programs of a pool before they are compiled; `CompiledPrograms` documents each."""

    context: Program
    empty: Program
    admit: Program
    advance: Program
    read: Program
    release: Program

    @property
    def slots(self) -> Slots:
        """Shapes of all slots."""
        return cast(Slots, self.release.shapes[0])

    def compile(self) -> CompiledPrograms:
        """Compiles every program ahead of time."""
        compiled = self.compile_each(lambda _, program: program.compile())
        formats = compiled["advance"].input_formats[0][0] if chooses_layouts() else None
        return CompiledPrograms(parameter_formats=formats, **compiled)

    def compile_each(self, compile: Callable[[str, Program], Compiled]) -> dict[str, Compiled]:
        """Compiles every program, `advance` first: its layouts are those of all.

        Args:
            compile: Compiles the program of a name.
        """
        advance = compile("advance", self.advance)
        parameters, slots, *_ = advance.input_formats[0]
        others = self.with_formats(parameters, slots) if chooses_layouts() else self
        names = [name for name in self._fields if name != "advance"]
        return {"advance": advance} | {name: compile(name, getattr(others, name)) for name in names}

    def with_formats(self, parameters: Placement, slots: Placement) -> "PoolFunctions":
        """Returns programs that take parameters and slots, and give slots, in given formats."""
        return self._replace(
            context=replace(self.context, takes=(parameters, *self.context.takes[1:])),
            empty=replace(self.empty, gives=slots),
            admit=replace(self.admit, takes=(slots, *self.admit.takes[1:]), gives=slots),
            read=replace(self.read, takes=(slots, *self.read.takes[1:])),
            release=replace(self.release, takes=(slots, *self.release.takes[1:]), gives=slots),
        )


def slot_specs(slots: Slots) -> Slots:
    """Returns the partition specs of slots, given the slots or their shapes."""
    context = context_specs(slots.context)
    return Slots(
        state=REPLICATED,
        context=context,
        negative_context=context,
        has_negative=REPLICATED,
        adapter_scale=REPLICATED,
    )


def pool_programs(
    graph: nnx.GraphDef,
    parameters: nnx.State,
    *,
    inputs: Sequence[jax.ShapeDtypeStruct],
    tokens: int,
    mask_id: int,
    slots: int,
    adapter_rank: int,
    mesh: Mesh | None,
    rows_at_once: int = 1,
) -> PoolFunctions:
    """Returns the programs of a pool; compiles nothing.

    Args:
        graph: Graph of a `MaskedTransformer`, from `nnx.split`; with adapters, if there are any.
        parameters: Its parameters, or their shapes, as a checkpoint has them.
        inputs: Shapes of the inputs of the transformer's `context`, of a single row.
        tokens: Tokens of an image.
        mask_id: The [MASK] id.
        slots: Decodes that run at a time.
        adapter_rank: Sum of the ranks of the adapters; 0 without adapters.
        mesh: Devices that share the network; None for one device.
        rows_at_once: Decodes that one call of the network computes.
    """

    def model(parameters: nnx.State, scale: Float[Array, "*B R"]) -> MaskedTransformer:
        scaled = with_adapter_scale(stack(parameters), scale)
        return cast(MaskedTransformer, nnx.merge(graph, scaled))

    def context_of(
        parameters: nnx.State, scale: Float[Array, " R"], *inputs: Array
    ) -> PyTree[Array]:
        return model(parameters, scale).context(*inputs)

    def empty(context: PyTree[Array]) -> Slots:
        idle = idle_state(slots, tokens, mask_id=mask_id)
        return slot_programs.empty_slots(idle, context, adapter_rank)

    def advance_slots(parameters: nnx.State, slots: Slots, limit: Array, resting: Array) -> Slots:
        network = partial(model, parameters)
        return advance(slots, limit, resting, network, mask_id=mask_id, rows_at_once=rows_at_once)

    sharded = partition_specs(parameters)
    taken = jax.eval_shape(unstack if mesh is None else lambda given: given, parameters)
    scale = jax.ShapeDtypeStruct((adapter_rank,), jnp.float32)
    context = jax.eval_shape(context_of, taken, scale, *inputs)
    slots_shape = jax.eval_shape(empty, context)
    of_context, of_slots = context_specs(context), slot_specs(slots_shape)
    row = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, idle_state(1, tokens, mask_id=mask_id)))
    number, flag = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
    program = partial(_program, mesh=mesh)
    advancing = program(
        advance_slots,
        (taken, slots_shape, number, jax.ShapeDtypeStruct((slots,), jnp.bool_)),
        (sharded, of_slots, REPLICATED, REPLICATED),
        of_slots,
        donated=1,
    )
    if chooses_layouts():
        taken_parameters, taken_slots, *others = advancing.takes
        takes = (of_any_layout(taken_parameters), of_any_layout(taken_slots), *others)
        advancing = replace(advancing, takes=takes, gives=of_any_layout(advancing.gives))
    return PoolFunctions(
        context=program(
            context_of,
            (taken, scale, *inputs),
            (sharded, REPLICATED, *(REPLICATED,) * len(inputs)),
            of_context,
        ),
        empty=program(empty, (context,), (of_context,), of_slots),
        admit=program(
            slot_programs.admit,
            (slots_shape, number, row, context, context, flag, scale),
            (of_slots, REPLICATED, REPLICATED, of_context, of_context, REPLICATED, REPLICATED),
            of_slots,
            donated=0,
        ),
        advance=advancing,
        read=program(slot_programs.read, (slots_shape, number), (of_slots, REPLICATED), REPLICATED),
        release=program(
            slot_programs.release,
            (slots_shape, number),
            (of_slots, REPLICATED),
            of_slots,
            donated=0,
        ),
    )


def _program(
    function: Callable[..., PyTree[Array]],
    shapes: tuple[PyTree[jax.ShapeDtypeStruct], ...],
    in_specs: tuple[PyTree[PartitionSpec], ...],
    out_specs: PyTree[PartitionSpec],
    *,
    mesh: Mesh | None,
    donated: int | tuple[int, ...] = (),
) -> Program:
    """Returns the program of a function of one device's shards, over a mesh if there is one."""
    if mesh is None:
        takes = (None,) * len(shapes)
        return Program(function=function, shapes=shapes, takes=takes, donated=donated)
    # check_vma: replicated results are equal on every device, which JAX's types cannot prove.
    sharded = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return Program(
        function=sharded,
        shapes=shapes,
        takes=shardings(in_specs, mesh),
        gives=shardings(out_specs, mesh),
        donated=donated,
    )
