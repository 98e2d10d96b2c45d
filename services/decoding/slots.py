"""Slots that decodes share: they are admitted one by one and advance together.

There are four programs, each compiled once whatever the number of requests: `admit` puts a request
into a slot, `advance` takes steps until nothing is left to do or as many as asked, `read` hands out
one row and `release` puts one to rest before its end.

Rows are computed in groups of a fixed size, so that a row goes through the very same arithmetic
alone as in company, and groups at rest are skipped. The two branches of guidance are two calls of
the network over the same rows, not one over twice as many: the second is left out while no row of
the group is guided, and the first is the same arithmetic either way. (One call over both measured
within 3% of two, for one row on a CPU.)

Source: DESIGN 5.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from services.decoding.guidance import guidance_at
from services.decoding.sampler import decode_step
from services.decoding.state import DecodeState
from services.nn.attention import Context

# tokens, context, conditional -> logits, as the transformers have it.
Logits = Callable[[Int[Array, "B N"], Context, Bool[Array, " B"]], Array]


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
        context: Of one row; only its shapes and `is_text` are used.
    """
    count = state.step.shape[0]

    def widened(array: Array, axis: int) -> Array:
        return jnp.zeros((*array.shape[:axis], count, *array.shape[axis + 1 :]), array.dtype)

    def blank() -> Context:  # buffers of its own each time, so that all can be donated
        return Context(
            widened(context.keys, 1),
            widened(context.values, 1),
            widened(context.mask, 0),
            jnp.array(context.is_text, copy=True),
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
    slots: Slots, limit: Int[Array, ""], logits: Logits, *, mask_id: int, group: int
) -> Slots:
    """Takes steps of every row in one program, until all rest or `limit` steps were taken.

    Args:
        slots: The decodes.
        limit: Most steps to take.
        logits: The network.
        mask_id: Its [MASK] id.
        group: Rows computed together; divides the number of slots.

    Raises:
        ValueError: the groups do not fill the slots.
    """
    count = slots.state.step.shape[0]
    if count % group:
        raise ValueError(f"{count} slots cannot be computed in groups of {group}")

    def step_group(index: Int[Array, ""], state: DecodeState) -> DecodeState:
        first = index * group
        rows = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, first, group), state)

        def predict(tokens: Int[Array, "G N"]) -> tuple[Array, Array]:
            active = rows.step < rows.total
            scale = guidance_at(rows.step, rows.total, rows.first_guidance, rows.guidance)
            heard = _group_of(slots.context, first, group)
            conditional = logits(tokens, heard, jnp.ones(group, bool))

            def other() -> Array:
                has_opposite = jax.lax.dynamic_slice_in_dim(slots.has_opposite, first, group)
                return logits(tokens, _group_of(slots.opposite, first, group), has_opposite)

            # At a scale of 0 the other branch does not count, whatever it holds.
            guides = jnp.any(active & (scale != 0))
            return conditional, jax.lax.cond(guides, other, lambda: conditional)

        def step(rows: DecodeState) -> DecodeState:
            return decode_step(rows, predict, mask_id=mask_id)

        stepped = jax.lax.cond(jnp.any(rows.step < rows.total), step, lambda resting: resting, rows)
        return jax.tree.map(
            lambda array, part: jax.lax.dynamic_update_slice_in_dim(array, part, first, axis=0),
            state,
            stepped,
        )

    def step_all(carry: tuple[Array, DecodeState]) -> tuple[Array, DecodeState]:
        taken, state = carry
        return taken + 1, jax.lax.fori_loop(0, count // group, step_group, state)

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
        place(all_rows.mask, one.mask, 0),
        all_rows.is_text,
    )


def _group_of(context: Context, first: Int[Array, ""], group: int) -> Context:
    """Returns the contexts of a group's rows."""

    def part(array: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, first, group, axis)

    return Context(
        part(context.keys, 1), part(context.values, 1), part(context.mask, 0), context.is_text
    )
