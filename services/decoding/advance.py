"""The steps of all slots: one decode after the other, or several in one call of the network.

One after the other is the rule, and idle slots are skipped: so a decode goes through the same
arithmetic alone and in company. Little speed is lost where a decode fills the chip: an image of
Muse is 256 or 4096 tokens, twice as many with guidance, and from about 500 tokens a step is limited
by a chip's matrix units and not by its memory. The two branches of guidance are one call of the
network over two rows; at a guidance scale of 0 it is one call over one row. Guidance combines the
features before the last layer, which is then computed once.

A chip that one decode leaves waiting computes a fixed number of them in one call, each with both
branches, whatever is asked for: the result of an absent decode is dropped, and that of the second
branch has no weight at a scale of 0. The shape of that call never changes and no row reads another,
so a decode comes to the same bits alone and in company here too. They need not be those of the
first way: its products have other shapes.

Source: docs/architecture.md.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from services.decoding.guidance import guidance_at, guided
from services.decoding.sampler import decode_step
from services.decoding.slots import MaskedTransformer, Slots, row_axes
from services.decoding.state import DecodeState

# Builds the transformer with the adapters of slots, given the scale of the adapters of all rows, or
# of each. It does so within the step, so that XLA does not copy its slices of stacked parameters
# (services/nn/stacks.py).
Network = Callable[[Float[Array, "*B R"]], MaskedTransformer]


def advance(
    slots: Slots,
    limit: Int[Array, ""],
    resting: Bool[Array, " S"],
    network: Network,
    *,
    mask_id: int,
    rows_at_once: int = 1,
) -> Slots:
    """Advances every active slot but the resting ones until all are idle or took `limit` steps.

    Args:
        slots: The slots.
        limit: Steps that each takes at most.
        resting: Slots that take no step.
        network: Builds the transformer.
        mask_id: The [MASK] id.
        rows_at_once: Decodes that one call of the network computes, 1 to the number of slots.
    """
    step = _step_one if rows_at_once == 1 else _step_several

    def at_work(state: DecodeState) -> Bool[Array, " S"]:
        return (state.step < state.total) & ~resting

    def step_all(carry: tuple[Array, DecodeState]) -> tuple[Array, DecodeState]:
        taken, state = carry
        active = at_work(state)
        order = jnp.argsort(~active, stable=True)  # idle slots come last; the loop ends before them
        order = jnp.where(jnp.arange(len(active)) < active.sum(), order, len(active))
        order = jnp.pad(order, (0, -len(order) % rows_at_once), constant_values=len(active))

        def step_group(index: Int[Array, ""], state: DecodeState) -> DecodeState:
            group = jax.lax.dynamic_slice_in_dim(order, index * rows_at_once, rows_at_once)
            return step(slots, group, state, network, mask_id=mask_id)

        groups = -(-active.sum() // rows_at_once)
        return taken + 1, jax.lax.fori_loop(0, groups, step_group, state)

    def unfinished(carry: tuple[Array, DecodeState]) -> Array:
        taken, state = carry
        return (taken < limit) & jnp.any(at_work(state))

    state = jax.lax.while_loop(unfinished, step_all, (jnp.zeros_like(limit), slots.state))[1]
    return slots._replace(state=state)


def _step_one(
    slots: Slots, group: Int[Array, "1"], state: DecodeState, network: Network, *, mask_id: int
) -> DecodeState:
    """Takes a step of one decode, by the branches that it needs."""
    slot = group[0]
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
            both = _concatenated(context, _row(slots.negative_context, slot))
            features = model.features(jnp.tile(tokens, (2, 1)), both, jnp.ones(2, bool))
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


def _step_several(
    slots: Slots, group: Int[Array, " G"], state: DecodeState, network: Network, *, mask_id: int
) -> DecodeState:
    """Takes a step of several decodes, all by both branches.

    Args:
        slots: The slots.
        group: Their slots; the number of slots where there is none.
        state: State of all slots.
        network: Builds the transformer.
        mask_id: The [MASK] id.
    """

    def of_group(array: Array, axis: int = 0) -> Array:
        return jnp.take(array, group, axis, mode="clip")

    rows = jax.tree.map(of_group, state)

    def predict(tokens: Int[Array, "G N"]) -> Float[Array, "G N V"]:
        context, negative = (
            jax.tree.map(of_group, each, row_axes(each))
            for each in (slots.context, slots.negative_context)
        )
        scale = guidance_at(rows.step, rows.total, rows.guidance_scale_start, rows.guidance_scale)
        adapters, has_negative = of_group(slots.adapter_scale), of_group(slots.has_negative)
        features = network(jnp.tile(adapters, (2, 1))).features(
            jnp.tile(tokens, (2, 1)),
            _concatenated(context, negative),
            jnp.concatenate([jnp.ones_like(has_negative), has_negative]),
        )
        cond, other = jnp.split(features, 2)
        return network(adapters).last_layer(guided(cond, other, scale))

    stepped = decode_step(rows, predict, mask_id=mask_id)
    return jax.tree.map(lambda array, part: array.at[group].set(part, mode="drop"), state, stepped)


def _row(context: PyTree[Array], slot: Int[Array, ""]) -> PyTree[Array]:
    """Returns the context of one slot."""
    return jax.tree.map(
        lambda array, axis: jax.lax.dynamic_slice_in_dim(array, slot, 1, axis),
        context,
        row_axes(context),
    )


def _concatenated(first: PyTree[Array], second: PyTree[Array]) -> PyTree[Array]:
    """Returns the rows of one context, then those of another."""
    return jax.tree.map(
        lambda axis, *rows: jnp.concatenate(rows, axis), row_axes(first), first, second
    )
