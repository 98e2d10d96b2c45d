"""Slots that decodes share: requests are admitted one by one and advance together.

There are four programs, each compiled once for any number of requests: `admit` puts a request into
a slot, `advance` (services/decoding/advance.py) takes steps until every slot is idle, rests, or a
limit is reached, `read` returns the state of one slot, and `release` makes a slot idle before its
decode has ended.

Source: docs/architecture.md.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from services.decoding.state import DecodeState
from services.nn.attention import Context


class MaskedTransformer(Protocol):
    """A transformer that predicts masked tokens, as base and superres do."""

    def context(self, *inputs: Array) -> PyTree[Array]:
        """Computes what no step changes, once per decode.

        Returns:
            A `Context`, or a tree of arrays whose second axis is that of the rows.
        """

    def features(
        self, tokens: Int[Array, "B N"], context: PyTree[Array], conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns the input of the last layer; rows that are not conditional ignore the text."""

    def cfg_batch_features(
        self, tokens: Int[Array, "B N"], context: PyTree[Array]
    ) -> Float[Array, "2*B N D"]:
        """Returns `features` of the conditional rows, then of the unconditional rows."""

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns float32 logits by an affine map, with which guidance commutes."""


class Slots(NamedTuple):
    """The state and contexts of all slots, on the device.

    Attributes:
        state: State of each slot's decode.
        context: Context of each slot's prompt.
        negative_context: Context of each slot's negative prompt.
        has_negative: Slots with a negative prompt; other slots guide away from no text.
        adapter_scale: Scale of each slot's adapters, as `AdapterScales.of` returns it.
    """

    state: DecodeState
    context: PyTree[Array]
    negative_context: PyTree[Array]
    has_negative: Bool[Array, " S"]
    adapter_scale: Float[Array, "S R"]


def row_axes(context: PyTree[Array]) -> PyTree[int]:
    """Returns the axis of the rows in each array of a context: 1, but 0 in a `Context`'s length."""

    def axes(part: Context | Array) -> Context | int:
        return Context._make((1, 1, 0)) if isinstance(part, Context) else 1

    return jax.tree.map(axes, context, is_leaf=lambda part: isinstance(part, Context))


class Progress(NamedTuple):
    """The state of one slot after a step, copied out of `Slots`.

    Attributes:
        tokens: Ids; [MASK] where still unknown.
        known: Tokens that no further step changes.
        step: Steps taken.
        total: Steps of the whole decode.
    """

    tokens: Int[np.ndarray, " N"]
    known: Bool[np.ndarray, " N"]
    step: int
    total: int


def empty_slots(state: DecodeState, context: PyTree[Array], adapter_rank: int = 0) -> Slots:
    """Makes slots whose contexts are zero, in the shapes of the context of one row."""
    count = state.step.shape[0]

    def blank() -> Any:  # separate buffers per call, so that all of them can be donated
        def zeros(array: Array, axis: int) -> Array:
            return jnp.zeros((*array.shape[:axis], count, *array.shape[axis + 1 :]), array.dtype)

        return jax.tree.map(zeros, context, row_axes(context))

    return Slots(
        state=jax.tree.map(jnp.array, state),
        context=blank(),
        negative_context=blank(),
        has_negative=jnp.zeros(count, bool),
        adapter_scale=jnp.zeros((count, adapter_rank)),
    )


def admit(
    slots: Slots,
    slot: Int[Array, ""],
    row: DecodeState,
    context: PyTree[Array],
    negative_context: PyTree[Array],
    has_negative: Bool[Array, ""],
    adapter_scale: Float[Array, " R"],
) -> Slots:
    """Puts one decode, a single row, into a slot and overwrites the slot's previous content.

    `negative_context` is ignored if `has_negative` is False.
    """

    def insert(all_rows: Array, one: Array, axis: int = 0) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(all_rows, one, slot, axis)

    axes = row_axes(context)
    return Slots(
        jax.tree.map(insert, slots.state, row),
        jax.tree.map(insert, slots.context, context, axes),
        jax.tree.map(insert, slots.negative_context, negative_context, axes),
        slots.has_negative.at[slot].set(has_negative),
        slots.adapter_scale.at[slot].set(adapter_scale),
    )


def read(slots: Slots, slot: Int[Array, ""]) -> Progress:
    """Copies the state of one slot into separate buffers, which outlive the next step."""
    state = slots.state

    def row(array: Array) -> Any:  # on the device still
        return jax.lax.dynamic_index_in_dim(array, slot, keepdims=False)

    return Progress(row(state.tokens), row(state.known), row(state.step), row(state.total))


def release(slots: Slots, slot: Int[Array, ""]) -> Slots:
    """Makes one slot idle, even if its decode has steps left."""
    state = slots.state
    return slots._replace(state=state._replace(total=state.total.at[slot].set(state.step[slot])))
