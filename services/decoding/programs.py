"""The compiled programs of a pool, on one device or over a mesh.

Over a mesh every device runs the same program on its shards of the parameters and contexts. The
state of every slot is replicated, and all devices draw the same noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Float, PyTree

from services.decoding import slots as slot_programs
from services.decoding.slots import MaskedTransformer, Progress, Slots
from services.decoding.state import DecodeState, idle_state
from services.nn.attention import Context
from services.nn.compiling import compiler_options
from services.nn.low_rank import with_adapter_scale
from services.nn.sharding import CONTEXT, REPLICATED, partition_specs, shardings
from services.nn.stacks import stack, unstack

SLOT_SPECS = Slots(
    state=REPLICATED,
    context=CONTEXT,
    negative_context=CONTEXT,
    has_negative=REPLICATED,
    adapter_scale=REPLICATED,
)


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
    """

    context: Callable[..., Context]
    empty: Callable[[Context], Slots]
    admit: Callable[[Slots, np.int32, DecodeState, Context, Context, np.bool_, np.ndarray], Slots]
    advance: Callable[[nnx.State, Slots, np.int32, np.ndarray], Slots]
    read: Callable[[Slots, np.int32], Progress]
    release: Callable[[Slots, np.int32], Slots]


class Program(NamedTuple):
    """A jitted function, and the shapes of its arguments."""

    function: Wrapped
    shapes: tuple[PyTree[jax.ShapeDtypeStruct], ...]


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
        compiled = {
            name: program.function.lower(*program.shapes).compile()
            for name, program in self._asdict().items()
        }
        return CompiledPrograms(**compiled)


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
    """

    def model(parameters: nnx.State, scale: Float[Array, " R"]) -> MaskedTransformer:
        scaled = with_adapter_scale(stack(parameters), scale)
        return cast(MaskedTransformer, nnx.merge(graph, scaled))

    def context_of(parameters: nnx.State, scale: Float[Array, " R"], *inputs: Array) -> Context:
        return model(parameters, scale).context(*inputs)

    def empty(context: Context) -> Slots:
        idle = idle_state(slots, tokens, mask_id=mask_id)
        return slot_programs.empty_slots(idle, context, adapter_rank)

    def advance(parameters: nnx.State, slots: Slots, limit: Array, resting: Array) -> Slots:
        network = partial(model, parameters)
        return slot_programs.advance(slots, limit, resting, network, mask_id=mask_id)

    sharded = partition_specs(parameters)
    taken = jax.eval_shape(unstack if mesh is None else lambda given: given, parameters)
    scale = jax.ShapeDtypeStruct((adapter_rank,), jnp.float32)
    context = jax.eval_shape(context_of, taken, scale, *inputs)
    slots_shape = jax.eval_shape(empty, context)
    row = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, idle_state(1, tokens, mask_id=mask_id)))
    number, flag = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
    return PoolFunctions(
        context=Program(
            _jit(context_of, mesh, (sharded, REPLICATED, *(REPLICATED,) * len(inputs)), CONTEXT),
            (taken, scale, *inputs),
        ),
        empty=Program(_jit(empty, mesh, (CONTEXT,), SLOT_SPECS), (context,)),
        admit=Program(
            _jit(
                slot_programs.admit,
                mesh,
                (SLOT_SPECS, REPLICATED, REPLICATED, CONTEXT, CONTEXT, REPLICATED, REPLICATED),
                SLOT_SPECS,
                donate=0,
            ),
            (slots_shape, number, row, context, context, flag, scale),
        ),
        advance=Program(
            _jit(
                advance,
                mesh,
                (sharded, SLOT_SPECS, REPLICATED, REPLICATED),
                SLOT_SPECS,
                donate=1,
            ),
            (taken, slots_shape, number, jax.ShapeDtypeStruct((slots,), jnp.bool_)),
        ),
        read=Program(
            _jit(slot_programs.read, mesh, (SLOT_SPECS, REPLICATED), REPLICATED),
            (slots_shape, number),
        ),
        release=Program(
            _jit(slot_programs.release, mesh, (SLOT_SPECS, REPLICATED), SLOT_SPECS, donate=0),
            (slots_shape, number),
        ),
    )


def _jit(
    function: Callable[..., PyTree[Array]],
    mesh: Mesh | None,
    in_specs: tuple[PyTree[PartitionSpec], ...],
    out_specs: PyTree[PartitionSpec],
    *,
    donate: int | tuple[int, ...] = (),
) -> Wrapped:
    """Jits a function of one device's shards, over a mesh if there is one.

    Results may overwrite the buffers of the arguments that `donate` names.
    """
    if mesh is None:
        return jax.jit(function, donate_argnums=donate, compiler_options=compiler_options())
    # check_vma: replicated results are equal on every device, which JAX's types cannot prove.
    sharded = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(
        sharded,
        in_shardings=shardings(in_specs, mesh),
        out_shardings=shardings(out_specs, mesh),
        donate_argnums=donate,
        compiler_options=compiler_options(),
    )
