"""Slots that decodes share: requests are admitted one by one and advance together.

There are four programs, each compiled once for any number of requests: `admit` puts a request into
a slot, `advance` takes steps until every slot is idle, rests, or a limit is reached, `read` returns
the state of one slot, and `release` makes a slot idle before its decode has ended.

`advance` computes the rows one after the other and skips idle slots, so that a row goes through the
same arithmetic alone and in company. Little speed is lost: a row of Muse is 256 or 4096 tokens,
twice as many with guidance, and from about 500 tokens a step is limited by a chip's matrix units
and not by its memory. The two branches of guidance are one call of the network over two rows; at a
guidance scale of 0 it is one call over one row. Guidance combines the features before the last
layer, which is then computed once.

Source: docs/architecture.md.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from services.decoding.guidance import guidance_at, guided
from services.decoding.sampler import decode_step
from services.decoding.state import DecodeState
from services.nn.attention import Context


class MaskedTransformer(Protocol):
    """A transformer that predicts masked tokens, as base and superres do."""

    def context(self, *inputs: Array) -> Context:
        """Computes cross-attention keys and values, once per decode."""

    def features(
        self, tokens: Int[Array, "B N"], context: Context, conditional: Bool[Array, " B"]
    ) -> Float[Array, "B N D"]:
        """Returns the input of the last layer; rows that are not conditional ignore the text."""

    def cfg_batch_features(
        self, tokens: Int[Array, "B N"], context: Context
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
    context: Context
    negative_context: Context
    has_negative: Bool[Array, " S"]
    adapter_scale: Float[Array, "S R"]


SLOT_AXES = Context._make((1, 1, 0))  # the axis of rows of keys, values and length


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


def empty_slots(state: DecodeState, context: Context, adapter_rank: int = 0) -> Slots:
    """Makes slots whose contexts are zero, in the shapes of the context of one row."""
    count = state.step.shape[0]

    def blank() -> Any:  # separate buffers per call, so that all of them can be donated
        def zeros(array: Array, axis: int) -> Array:
            return jnp.zeros((*array.shape[:axis], count, *array.shape[axis + 1 :]), array.dtype)

        return jax.tree.map(zeros, context, SLOT_AXES)

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
    context: Context,
    negative_context: Context,
    has_negative: Bool[Array, ""],
    adapter_scale: Float[Array, " R"],
) -> Slots:
    """Puts one decode, a single row, into a slot and overwrites the slot's previous content.

    `negative_context` is ignored if `has_negative` is False.
    """

    def insert(all_rows: Array, one: Array, axis: int = 0) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(all_rows, one, slot, axis)

    return Slots(
        jax.tree.map(insert, slots.state, row),
        jax.tree.map(insert, slots.context, context, SLOT_AXES),
        jax.tree.map(insert, slots.negative_context, negative_context, SLOT_AXES),
        slots.has_negative.at[slot].set(has_negative),
        slots.adapter_scale.at[slot].set(adapter_scale),
    )


def advance(
    slots: Slots,
    limit: Int[Array, ""],
    resting: Bool[Array, " S"],
    network: Callable[[Float[Array, " R"]], MaskedTransformer],
    *,
    mask_id: int,
) -> Slots:
    """Advances every active slot but the resting ones until all are idle or took `limit` steps.

    `network` builds the transformer with the adapters of a slot, given their scale. It does so
    within the step, so that XLA does not copy its slices of stacked parameters
    (services/nn/stacks.py).
    """

    def at_work(state: DecodeState) -> Bool[Array, " S"]:
        return (state.step < state.total) & ~resting

    def step_row(slot: Int[Array, ""], state: DecodeState) -> DecodeState:
        row = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, slot, 1), state)

        def predict(tokens: Int[Array, "1 N"]) -> Float[Array, "1 N V"]:
            context, model = _row(slots.context, slot), network(slots.adapter_scale[slot])
            scale = guidance_at(row.step, row.total, row.guidance_scale_start, row.guidance_scale)

            def without_guidance() -> Array:
                features = model.features(tokens, context, jnp.ones(1, bool))
                return features.astype(jnp.float32)  # the type that `guided` returns

            def guided_from_no_text() -> Array:
                cond, uncond = jnp.split(model.cfg_batch_features(tokens, context), 2)
                return guided(cond, uncond, scale)

            def guided_from_negative() -> Array:
                negative_context = _row(slots.negative_context, slot)
                cfg_batch = jax.tree.map(
                    lambda axis, *rows: jnp.concatenate(rows, axis),
                    *(SLOT_AXES, context, negative_context),
                )
                features = model.features(jnp.tile(tokens, (2, 1)), cfg_batch, jnp.ones(2, bool))
                cond, negative = jnp.split(features, 2)
                return guided(cond, negative, scale)

            # At a scale of 0 the guided features are the conditional ones, so only they are needed.
            branch = jnp.where(scale[0] == 0, 0, 1 + slots.has_negative[slot].astype(jnp.int32))
            branches = (without_guidance, guided_from_no_text, guided_from_negative)
            return model.last_layer(jax.lax.switch(branch, branches))

        stepped = decode_step(row, predict, mask_id=mask_id)
        return jax.tree.map(
            lambda array, part: jax.lax.dynamic_update_slice_in_dim(array, part, slot, axis=0),
            state,
            stepped,
        )

    def step_all(carry: tuple[Array, DecodeState]) -> tuple[Array, DecodeState]:
        taken, state = carry
        active = at_work(state)
        order = jnp.argsort(~active, stable=True)  # idle slots come last; the loop ends before them
        stepped = jax.lax.fori_loop(
            0, active.sum(), lambda index, state: step_row(order[index], state), state
        )
        return taken + 1, stepped

    def unfinished(carry: tuple[Array, DecodeState]) -> Array:
        taken, state = carry
        return (taken < limit) & jnp.any(at_work(state))

    state = jax.lax.while_loop(unfinished, step_all, (jnp.zeros_like(limit), slots.state))[1]
    return slots._replace(state=state)


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


def _row(context: Context, slot: Int[Array, ""]) -> Any:
    """Returns the context of one slot."""
    return jax.tree.map(
        lambda array, axis: jax.lax.dynamic_slice_in_dim(array, slot, 1, axis), context, SLOT_AXES
    )
