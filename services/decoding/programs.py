"""The programs of a pool: each compiled once, for one device or for all of a mesh.

Over a mesh every device runs the same program on its share of the parameters and of the contexts,
and on all of the rest: each keeps the state of every row and draws the same noise.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from services.decoding import slots as slot_programs
from services.decoding.slots import MaskedTransformer, Slots
from services.decoding.state import DecodeState, resting_state
from services.nn.attention import Context
from services.nn.compiling import compiler_options
from services.nn.layers import apart, together
from services.nn.sharding import CONTEXT, WHOLE, divisions, shardings

SLOTS = Slots(state=WHOLE, context=CONTEXT, opposite=CONTEXT, has_opposite=WHOLE)
Program = tuple[Any, tuple[Any, ...]]  # a jitted function, and the shapes it is called with


class PoolPrograms:
    """What a pool runs on the device."""

    def __init__(
        self,
        graph: nnx.GraphDef,
        parameters: nnx.State,
        *,
        inputs: Sequence[jax.ShapeDtypeStruct],
        tokens: int,
        mask_id: int,
        slots: int,
        mesh: Mesh | None,
    ) -> None:
        """Describes the programs; compiles nothing.

        Args:
            graph: Of a `MaskedTransformer`, split.
            parameters: Its parameters, or their shapes.
            inputs: Shapes of what its `context` takes, of a single row.
            tokens: Tokens of an image.
            mask_id: The [MASK] id.
            slots: Decodes that run at a time.
            mesh: Devices it is spread over; None for one.
        """
        self._graph, self._inputs, self._mesh = graph, tuple(inputs), mesh
        self._tokens, self._mask_id, self._rows = tokens, mask_id, slots
        self._divided = divisions(parameters)
        given = apart if mesh is None else lambda spread: spread
        self._parameters = jax.eval_shape(given, parameters)
        self._one_context = jax.eval_shape(self._context, self._parameters, *inputs)

    def slots(self) -> Slots:
        """Returns the shapes of all slots."""
        return jax.eval_shape(self._empty, self._one_context)

    def all(self) -> dict[str, Program]:
        """Returns every program by name."""
        context, slots = self._one_context, self.slots()
        row = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self._resting(1)))
        number = jax.ShapeDtypeStruct((), jnp.int32)
        flag = jax.ShapeDtypeStruct((), jnp.bool_)
        wholes = (WHOLE,) * len(self._inputs)
        return {
            "context": (
                self._spread(self._context, (self._divided, *wholes), CONTEXT),
                (self._parameters, *self._inputs),
            ),
            "empty": (self._spread(self._empty, (CONTEXT,), SLOTS), (context,)),
            "admit": (
                self._spread(
                    slot_programs.admit,
                    (SLOTS, WHOLE, WHOLE, CONTEXT, CONTEXT, WHOLE),
                    SLOTS,
                    donate=0,
                ),
                (slots, number, row, context, context, flag),
            ),
            "advance": (
                self._spread(self._advance, (self._divided, SLOTS, WHOLE), SLOTS, donate=1),
                (self._parameters, slots, number),
            ),
            "read": (self._spread(slot_programs.read, (SLOTS, WHOLE), WHOLE), (slots, number)),
            "release": (
                self._spread(slot_programs.release, (SLOTS, WHOLE), SLOTS, donate=0),
                (slots, number),
            ),
        }

    def _spread(
        self,
        function: Callable[..., Any],
        takes: tuple[Any, ...],
        gives: Any,
        *,
        donate: int | tuple[int, ...] = (),
    ) -> Any:
        """Jits a function, over the mesh if there is one.

        Args:
            function: Works on the share of a device.
            takes: How its arguments are divided.
            gives: How its results are.
            donate: Arguments whose buffers it may write its results into.
        """
        if self._mesh is None:
            return jax.jit(function, donate_argnums=donate, compiler_options=compiler_options())
        # What is whole is the same on every device, which the types cannot tell: hence check_vma.
        spread = jax.shard_map(
            function, mesh=self._mesh, in_specs=takes, out_specs=gives, check_vma=False
        )
        return jax.jit(
            spread,
            in_shardings=shardings(takes, self._mesh),
            out_shardings=shardings(gives, self._mesh),
            donate_argnums=donate,
            compiler_options=compiler_options(),
        )

    def _resting(self, rows: int) -> DecodeState:
        return resting_state(rows, self._tokens, mask_id=self._mask_id)

    def _empty(self, context: Context) -> Slots:
        return slot_programs.empty_slots(self._resting(self._rows), context)

    def _model(self, parameters: Any) -> MaskedTransformer:
        return cast(MaskedTransformer, nnx.merge(self._graph, together(parameters)))

    def _context(self, parameters: Any, *inputs: Array) -> Context:
        return self._model(parameters).context(*inputs)

    def _advance(self, parameters: Any, slots: Slots, limit: Array) -> Slots:
        return slot_programs.advance(
            slots, limit, lambda: self._model(parameters), mask_id=self._mask_id
        )
