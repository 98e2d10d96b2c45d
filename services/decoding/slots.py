"""Slots that decodes share: they are admitted one by one and advance together.

There are four programs, each compiled once whatever the number of requests: `admit` puts a request
into a slot, `advance` takes steps until nothing is left to do or as many as asked, `read` hands out
one row and `release` puts one to rest before its end.

Rows are computed one after the other, so that a row goes through the very same arithmetic alone as
in company, and rows at rest are skipped. Little is lost: a row of Muse is 256 or 4096 tokens, twice
as many with guidance, and from about 500 on a chip's matrix units are what a step waits for, not
its memory. Both branches of guidance are one call of the network over two rows; where the scale is
0 it is one over one. Their features are combined before the last layer, so that it is computed
once.

Source: DESIGN 5.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from services.decoding.guidance import guidance_at, guided
from services.decoding.sampler import decode_step
from services.decoding.state import DecodeState
from services.nn.attention import Context


class MaskedTransformer(Protocol):
    """What base and superres have in common."""

    def context(self, *inputs: Array) -> Context:
        """Makes the context of some rows, once a decode."""

    def features(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns what the last layer takes."""

    def both_features(self, tokens: Int[Array, "B N"], context: Context) -> Float[Array, "2*B N D"]:
        """Returns the same of rows that hear the text, then of the same rows without it."""

    def last_layer(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns logits, by a map under which guidance is the same before as after."""


class Slots(NamedTuple):
    """Everything on the device that the decodes in flight need.

    Attributes:
        state: Their rows.
        context: What the conditional branch attends to.
        opposite: What the other branch attends to: the negative prompt.
        has_opposite: Rows with a negative prompt; the others' branch is unconditional.
    """

    state: DecodeState
    context: Context
    opposite: Context
    has_opposite: Bool[Array, " S"]


class RowState(NamedTuple):
    """What is handed out of a row.

    Attributes:
        tokens: Ids; [MASK] where unknown.
        known: Tokens that no step changes any more.
        step: Steps taken.
        total: Steps of the whole decode.
    """

    tokens: Int[Array, " N"]
    known: Bool[Array, " N"]
    step: Int[Array, ""]
    total: Int[Array, ""]


def empty_slots(state: DecodeState, context: Context) -> Slots:
    """Makes slots whose contexts are zero.

    Args:
        state: Rows at rest, one a slot.
        context: Of one row; only its shapes are used.
    """
    count = state.step.shape[0]

    def widened(array: Array, axis: int) -> Array:
        return jnp.zeros((*array.shape[:axis], count, *array.shape[axis + 1 :]), array.dtype)

    def blank() -> Context:  # buffers of its own each time, so that all can be donated
        return Context(
            widened(context.keys, 1),
            widened(context.values, 1),
            widened(context.length, 0),
        )

    return Slots(jax.tree.map(jnp.array, state), blank(), blank(), jnp.zeros(count, bool))


def admit(
    slots: Slots,
    slot: Int[Array, ""],
    row: DecodeState,
    context: Context,
    opposite: Context,
    has_opposite: Bool[Array, ""],
) -> Slots:
    """Puts one decode into a slot, over whatever was there.

    Args:
        slots: All slots.
        slot: Which one.
        row: Its state, a single row.
        context: Of that row.
        opposite: Of its negative prompt; anything of the same shape where it has none.
        has_opposite: Whether it has one.
    """
    state = jax.tree.map(
        lambda all_rows, one: jax.lax.dynamic_update_slice_in_dim(all_rows, one, slot, axis=0),
        slots.state,
        row,
    )
    return Slots(
        state,
        _placed(slots.context, context, slot),
        _placed(slots.opposite, opposite, slot),
        slots.has_opposite.at[slot].set(has_opposite),
    )


def advance(
    slots: Slots,
    limit: Int[Array, ""],
    network: Callable[[], MaskedTransformer],
    *,
    mask_id: int,
) -> Slots:
    """Takes steps of every row in one program, until all rest or `limit` steps were taken.

    Args:
        slots: The decodes.
        limit: Most steps to take.
        network: Makes the transformer, within the step: what it slices there is not copied then
            (services/nn/layers.py).
    """

    def step_row(slot: Int[Array, ""], state: DecodeState) -> DecodeState:
        row = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, slot, 1), state)

        def predict(tokens: Int[Array, "1 N"]) -> Float[Array, "1 N V"]:
            heard, model = _row_of(slots.context, slot), network()
            scale = guidance_at(row.step, row.total, row.first_guidance, row.guidance)

            def unguided() -> Array:
                features = model.features(tokens, heard, jnp.ones(1, bool))
                return features.astype(jnp.float32)  # as `guided` returns them

            def against_no_text() -> Array:
                told, untold = jnp.split(model.both_features(tokens, heard), 2)
                return guided(told, untold, scale)

            def against_opposite() -> Array:
                both = _beside(heard, _row_of(slots.opposite, slot))
                features = model.features(jnp.tile(tokens, (2, 1)), both, jnp.ones(2, bool))
                prompt, opposite = jnp.split(features, 2)
                return guided(prompt, opposite, scale)

            # At a scale of 0 the other branch does not count, whatever it holds.
            branches = jnp.where(scale[0] == 0, 0, 1 + slots.has_opposite[slot].astype(jnp.int32))
            kinds = (unguided, against_no_text, against_opposite)
            return model.last_layer(jax.lax.switch(branches, kinds))

        stepped = decode_step(row, predict, mask_id=mask_id)
        return jax.tree.map(
            lambda array, part: jax.lax.dynamic_update_slice_in_dim(array, part, slot, axis=0),
            state,
            stepped,
        )

    def step_all(carry: tuple[Array, DecodeState]) -> tuple[Array, DecodeState]:
        taken, state = carry
        active = state.step < state.total
        order = jnp.argsort(~active, stable=True)  # those at rest come last, and are left out
        stepped = jax.lax.fori_loop(
            0, active.sum(), lambda index, state: step_row(order[index], state), state
        )
        return taken + 1, stepped

    def unfinished(carry: tuple[Array, DecodeState]) -> Array:
        taken, state = carry
        return (taken < limit) & jnp.any(state.step < state.total)

    state = jax.lax.while_loop(unfinished, step_all, (jnp.zeros_like(limit), slots.state))[1]
    return slots._replace(state=state)


def read(slots: Slots, slot: Int[Array, ""]) -> RowState:
    """Returns one row in buffers of its own, which outlive the next step.

    Args:
        slots: All slots.
        slot: Which one.
    """
    state = slots.state

    def row(array: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(array, slot, keepdims=False)

    return RowState(row(state.tokens), row(state.known), row(state.step), row(state.total))


def release(slots: Slots, slot: Int[Array, ""]) -> Slots:
    """Puts one row to rest, whatever it had left to do.

    Args:
        slots: All slots.
        slot: Which one.
    """
    state = slots.state
    return slots._replace(state=state._replace(total=state.total.at[slot].set(state.step[slot])))


def _placed(all_rows: Context, one: Context, slot: Int[Array, ""]) -> Context:
    def place(array: Array, part: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, part, slot, axis)

    return Context(
        place(all_rows.keys, one.keys, 1),
        place(all_rows.values, one.values, 1),
        place(all_rows.length, one.length, 0),
    )


def _row_of(context: Context, slot: Int[Array, ""]) -> Context:
    """Returns the context of one row."""

    def part(array: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, slot, 1, axis)

    return Context(part(context.keys, 1), part(context.values, 1), part(context.length, 0))


def _beside(first: Context, second: Context) -> Context:
    """Returns the rows of two contexts as those of one."""
    return Context(
        jnp.concatenate([first.keys, second.keys], axis=1),
        jnp.concatenate([first.values, second.values], axis=1),
        jnp.concatenate([first.length, second.length]),
    )
